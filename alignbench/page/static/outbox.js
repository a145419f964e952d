// Actions on their way to the server. They are kept in this browser until the server has acknowledged them, and sent again, each
// under its own id, so that the server carries it out once.
import { post } from "./api.js";

const WAITS = [500, 1000, 2000, 4000, 8000];

export function id() {
  // crypto.randomUUID is there on https and localhost alone
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Outbox {
  /** `told({saved, words})` hears how it stands; `answered(state, action)` the server's answer; `refused(error)` what it does not take. */
  constructor(base, session, { told, answered, refused }) {
    Object.assign(this, { base, session, told, answered, refused, busy: false });
    this.name = `outbox ${base}`;
    this.waiting = this.stored();
  }

  stored() {
    try {
      return JSON.parse(localStorage.getItem(this.name)) || [];
    } catch {
      return [];
    }
  }

  keep() {
    try {
      localStorage.setItem(this.name, JSON.stringify(this.waiting));
    } catch {
      // a browser without storage: it is still sent, as long as this page is open
    }
  }

  get empty() {
    return !this.waiting.length;
  }

  send(action) {
    // A later draft of the same item stands for the earlier one, unless that one is under way.
    this.waiting = this.waiting.filter(
      (other, i) => !(other.kind === "draft" && other.item === action.item && !(this.busy && i === 0)),
    );
    this.waiting.push({ id: id(), ...action });
    this.keep();
    return this.flush();
  }

  async flush() {
    if (this.busy) return;
    this.busy = true;
    try {
      for (let failures = 0; this.waiting.length; ) {
        const action = this.waiting[0];
        this.told({ saved: false, words: "saving…" });
        let state;
        try {
          state = await post(`${this.base}/action`, action, this.session);
        } catch (error) {
          const refused = error.status >= 400 && error.status < 500;
          if (refused) {
            this.drop();
            this.refused(error);
            failures = 0;
            continue;
          }
          const why = error.status ? error.message : "No connection.";
          this.told({ saved: false, words: `Not saved yet: ${why} Trying again…` });
          await new Promise((go) => setTimeout(go, WAITS[Math.min(failures++, WAITS.length - 1)]));
          continue;
        }
        failures = 0;
        this.drop();
        this.answered(state, action);
      }
      this.told({ saved: true, words: "all saved" });
    } finally {
      this.busy = false;
    }
  }

  drop() {
    this.waiting.shift();
    this.keep();
  }
}
