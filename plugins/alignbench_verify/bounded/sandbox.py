"""The script that runs a model's program. It imports nothing but the standard library and runs as `python -I -S sandbox.py`.

Before anything of the model's is compiled, the process gives up, for good: more CPU time and memory than it is given, new
processes, sockets, opening files for writing, and changing, deleting or renaming any. Signals reach itself alone. Threads
are allowed. Files that its user can read can be read: nothing that it reads can leave.

Linux's seccomp (prctl(2), seccomp(2)) holds the system calls, by a filter in BPF: what is not listed is allowed, and what
is refused fails with EPERM, as for a user without rights."""

import base64
import ctypes
import json
import os
import platform
import resource
import sys

# Numbers of system calls: x86-64's, arm64's. None: there is none of that name.
REFUSED = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "creat": (85, None),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "link": (86, None),
    "linkat": (265, 37),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "mount": (165, 40),
    "umount2": (166, 39),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semctl": (66, 191),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "ioctl": (16, 29),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_getfd": (438, 438),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "syslog": (103, 116),
    "iopl": (172, None),
    "ioperm": (173, None),
}
# Answered as a kernel that has none of them, so that libraries take the older call, whose arguments a filter can read.
ABSENT = {"clone3": (435, 435), "openat2": (437, 437)}
CLONE, OPEN, OPENAT, TGKILL, FCNTL = (56, 220), (2, None), (257, 56), (234, 131), (72, 25)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CLONE_THREAD = 0x10000
# The commands of fcntl with this bit are 8 to 15, who is sent a signal and which (F_SETOWN 8, F_SETSIG 10, F_SETOWN_EX 15), and
# F_GET_PIPE_SZ.
SIGNALLING = 8

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
KILL, ALLOW, FAIL = 0x80000000, 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
NUMBER, ARCHITECTURE, ARGUMENTS = (
    0,
    4,
    16,
)  # offsets in struct seccomp_data; an argument has 8 bytes, the low half first
X32 = 0x40000000  # x86-64's other numbers


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction))]


def argument(index):
    return ARGUMENTS + 8 * index


def instructions(column, architecture, pid):
    """(code, jump if true, jump if false, value) of the filter."""
    found = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL),
    ]
    for numbers, error in ((REFUSED, EPERM), (ABSENT, ENOSYS)):
        for number in numbers.values():
            if number[column] is not None:
                found += [(EQUAL, 0, 1, number[column]), (RETURN, 0, 0, FAIL | error)]
    # With one look at an argument: refused where a bit is set (open for writing, a pipe that sends signals), where none is (a process in place of a
    # thread), where it is another's (a signal).
    for call, index, code, value, refused_if in (
        (OPEN, 1, ANY_BIT, WRITING, True),
        (OPENAT, 2, ANY_BIT, WRITING, True),
        (CLONE, 0, ANY_BIT, CLONE_THREAD, False),
        (TGKILL, 0, EQUAL, pid, False),
        (FCNTL, 1, ANY_BIT, SIGNALLING, True),
    ):
        if call[column] is not None:
            found += [
                (EQUAL, 0, 4, call[column]),
                (LOAD, 0, 0, argument(index)),
                (code, 0, 1, value) if refused_if else (code, 1, 0, value),
                (RETURN, 0, 0, FAIL | EPERM),
                (RETURN, 0, 0, ALLOW),
            ]
    return [*found, (RETURN, 0, 0, ALLOW)]


def shut_in():
    """Installs the filter; raises OSError where the system has none."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES:
        raise OSError(f"no filter for {sys.platform} on {machine}")
    rows = instructions(*MACHINES[machine], os.getpid())
    filled = (Instruction * len(rows))(*(Instruction(*row) for row in rows))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    program = Program(len(rows), filled)
    for arguments in (
        (no_new_privileges, 1, 0, 0, 0),
        (set_seccomp, filter_mode, ctypes.addressof(program), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def bound(limits):
    mib = 1 << 20
    for name, value in (
        ("RLIMIT_CPU", limits["cpu"]),
        ("RLIMIT_AS", limits["memory"] * mib),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 64),
    ):
        resource.setrlimit(getattr(resource, name), (value, value))


def main():
    asked = json.loads(base64.b64decode(sys.stdin.buffer.readline()))
    answers = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    try:
        bound(asked["limits"])
        shut_in()
    except (OSError, ValueError, AttributeError) as error:
        os.write(answers, f"unsafe {error}\n".encode("ascii", "replace"))
        return
    # The line begins before anything of the model's runs, so that no program can call its machine unsafe.
    os.write(answers, b"shut in: ")
    verdict, run = b"failed\n", exec  # by a name of this frame's: the program may replace the builtin
    try:
        space = {"__name__": "__main__"}
        tests = compile(asked["tests"], "<tests>", "exec")
        run(compile(asked["program"], "<response>", "exec"), space)
        run(tests, space)
        verdict = asked["token"].encode() + b"\n"
    except MemoryError:
        verdict = b"too much\n"
    except BaseException:  # sys.exit too: whoever leaves before the tests have ended has not passed them
        pass
    os.write(answers, verdict)
    os._exit(0)  # threads that still run are no reason to wait


if __name__ == "__main__":
    main()
