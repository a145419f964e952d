// A CUDA device for a torch that was built without CUDA: its tensors lie in the CPU's memory, and the CPU's kernels compute on
// them. Dispatch, autograd and autocast are those of CUDA, and so is what is refused. It is preloaded: torch asks which devices
// there are while it is imported, and remembers the answers.

#include <ATen/core/Tensor.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace {

const c10::Device GPU(c10::DeviceType::CUDA, 0);
const c10::Device CPU(c10::DeviceType::CPU);

// --- Who is there ---

c10::Stream stream() {
  return c10::Stream(c10::Stream::DEFAULT, GPU);
}

// There is one device, and never anything to wait for.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return GPU.type(); }
  c10::Device exchangeDevice(c10::Device) const override { return GPU; }
  c10::Device getDevice() const override { return GPU; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    auto memory = c10::GetCPUAllocator()->allocate(bytes);
    memory.unsafe_set_device(GPU);
    return memory;
  }
  c10::DeleterFnPtr raw_deleter() const override { return c10::GetCPUAllocator()->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Guard guard;
Allocator allocator;
const auto set = [] {
  c10::impl::device_guard_impl_registry[static_cast<size_t>(GPU.type())].store(&guard);
  c10::SetAllocator(GPU.type(), &allocator);
  return true;
}();

// A generator of the device; its numbers are those of one of the CPU's.
struct Generator final : c10::GeneratorImpl {
  Generator() : GeneratorImpl(GPU, c10::DispatchKeySet(c10::DispatchKey::CUDA)), own(at::detail::createCPUGenerator()) {}
  void set_current_seed(uint64_t seed) override { own.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { own.set_offset(offset); }
  uint64_t get_offset() const override { return own.get_offset(); }
  uint64_t current_seed() const override { return own.current_seed(); }
  uint64_t seed() override { return own.seed(); }
  void set_state(const c10::TensorImpl& state) override { own.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return own.unsafeGetGeneratorImpl()->get_state(); }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new Generator();
    copy->own = own.clone();
    return copy;
  }
  at::Generator own;
};

}  // namespace

namespace at {

struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  int getNumGPUs() const override { return 1; }
  void deviceSynchronize(DeviceIndex) const override {}
  c10::Allocator* getCUDADeviceAllocator() const override { return &allocator; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  at::Generator getNewGenerator(DeviceIndex) const override { return make_generator<::Generator>(); }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    static const at::Generator generator = make_generator<::Generator>();
    return generator;
  }
};

REGISTER_CUDA_HOOKS(CUDAHooks);

// Stands before torch's own function of this name, which goes by how torch was compiled.
namespace accelerator {
std::optional<c10::DeviceType> getAccelerator(bool) {
  return GPU.type();
}
}  // namespace accelerator

}  // namespace at

namespace {

// --- What the device computes: any operator, on the same memory, by the CPU's kernel ---

// The memory of `data`, which lives as long as `keeps`, as a storage on `device`.
c10::Storage shared(void* data, size_t bytes, c10::Storage keeps, c10::Device device) {
  auto* kept = new c10::Storage(std::move(keeps));
  c10::DataPtr memory(data, kept, [](void* p) { delete static_cast<c10::Storage*>(p); }, device);
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, std::move(memory), c10::GetAllocator(device.type()), /*resizable=*/true));
}

c10::Storage shared(const c10::Storage& other, c10::Device device) {
  return shared(other.mutable_data(), other.nbytes(), other, device);
}

at::Tensor as(const at::Tensor& like, c10::Storage storage) {
  const auto key = storage.device() == GPU ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  auto* own = made.unsafeGetTensorImpl();
  own->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.unsafeGetTensorImpl()->is_wrapped_number()) own->set_wrapped_number(true);
  return made;
}

// The arguments of one operator, as they are lent to the CPU.
class Lent {
 public:
  at::Tensor lend(const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.device() != GPU) return tensor;
    for (const auto& [ours, theirs] : tensors)
      if (ours.is_same(tensor)) return theirs;
    tensors.emplace_back(tensor, as(tensor, lend(tensor.storage())));
    return tensors.back().second;
  }

  c10::Storage lend(const c10::Storage& storage) {
    if (storage.device() != GPU) return storage;
    for (const auto& [ours, theirs] : storages)
      if (ours.unsafeGetStorageImpl() == storage.unsafeGetStorageImpl()) return theirs;
    storages.emplace_back(storage, shared(storage, CPU));
    return storages.back().second;
  }

  // What the CPU gave back: one of the arguments, a view of one, or something new, which is the device's if it is `here`.
  at::Tensor back(const at::Tensor& found, bool here) const {
    if (!found.defined()) return found;
    for (const auto& [ours, theirs] : tensors)
      if (theirs.is_same(found)) return ours;
    if (const auto* ours = ours_of(found.storage())) return as(found, *ours);
    return here ? as(found, shared(found.storage(), GPU)) : found;
  }

  // Arguments that were resized, or given another storage.
  void keep_up() {
    for (auto& [ours, theirs] : tensors) {
      if (ours.unsafeGetTensorImpl()->storage().unsafeGetStorageImpl() == nullptr) continue;
      const auto* known = ours_of(theirs.storage());
      if (known == nullptr) {
        ours.unsafeGetTensorImpl()->set_storage_keep_dtype(shared(theirs.storage(), GPU));
      } else if (known->mutable_data() != theirs.storage().mutable_data()) {
        auto grown = theirs.storage();
        known->unsafeGetStorageImpl()->set_data_ptr(
            c10::DataPtr(grown.mutable_data(), new c10::Storage(grown),
                         [](void* p) { delete static_cast<c10::Storage*>(p); }, GPU));
        known->unsafeGetStorageImpl()->set_nbytes(grown.nbytes());
      } else if (known->unsafeGetStorageImpl() != ours.storage().unsafeGetStorageImpl()) {
        ours.unsafeGetTensorImpl()->set_storage_keep_dtype(*known);
      }
      if (ours.sizes() != theirs.sizes() || ours.strides() != theirs.strides() ||
          ours.storage_offset() != theirs.storage_offset())
        ours.unsafeGetTensorImpl()->set_sizes_and_strides(theirs.sizes(), theirs.strides(), theirs.storage_offset());
    }
  }

 private:
  const c10::Storage* ours_of(const c10::Storage& found) const {
    for (const auto& [ours, theirs] : storages)
      if (theirs.unsafeGetStorageImpl() == found.unsafeGetStorageImpl()) return &ours;
    return nullptr;
  }

  std::vector<std::pair<at::Tensor, at::Tensor>> tensors;
  std::vector<std::pair<c10::Storage, c10::Storage>> storages;
};

template <typename Change>
c10::IValue each(const c10::IValue& value, Change change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> made;
    for (const at::Tensor& one : value.toTensorVector()) made.push_back(change(one));
    return made;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> made;
    for (const std::optional<at::Tensor>& one : value.toOptionalTensorVector())
      made.push_back(one ? std::optional<at::Tensor>(change(*one)) : std::nullopt);
    return made;
  }
  return value;
}

bool one_of(const std::string& name, std::initializer_list<const char*> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// As CUDA's operators do: only numbers of the CPU may meet tensors of the device, and indices into them.
void refuse_other_devices(const std::string& name, const at::Tensor& tensor, const at::Tensor& first, bool index) {
  if (!tensor.defined() || tensor.device() == GPU || tensor.dim() == 0) return;
  TORCH_CHECK(
      index, "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (", name,
      ", a tensor of shape ", tensor.sizes(), " is on the CPU)");
  TORCH_CHECK(
      first.device() == GPU, "indices should be either on cpu or on the same device as the indexed tensor (cpu)");
}

void compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  const bool copies = one_of(name, {"aten::copy_", "aten::copy", "aten::_copy_from", "aten::_copy_from_and_resize"});
  const bool indexes = one_of(name, {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index"});
  const size_t given = schema.arguments().size(), begin = stack->size() - given;
  const c10::IValue& leading = given ? (*stack)[begin] : c10::IValue();
  const at::Tensor first = leading.isTensor() ? leading.toTensor() : at::Tensor();

  bool here = false;
  std::optional<c10::Device> asked;
  for (size_t i = begin; i < stack->size(); ++i) {
    const auto& value = (*stack)[i];
    if (value.isDevice()) asked = value.toDevice();
    each(value, [&](const at::Tensor& tensor) {
      here |= tensor.defined() && tensor.device() == GPU;
      return tensor;
    });
  }
  const bool meets = here && !copies;
  if (copies) here = first.device() == GPU;
  if (asked) here = asked->type() == GPU.type();

  Lent lent;
  for (size_t i = begin; i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (value.isDevice() && here) {
      value = CPU;
    } else if (value.isStorage()) {
      value = lent.lend(value.toStorage());
    } else if (value.isGenerator()) {
      auto* own = dynamic_cast<Generator*>(value.toGenerator().unsafeGetGeneratorImpl());
      TORCH_CHECK(own || !here, "Expected a 'cuda' device type for generator but found 'cpu' (", name, ")");
      TORCH_CHECK(!own || here, "Expected a 'cpu' device type for generator but found 'cuda' (", name, ")");
      value = own->own;
    } else {
      const bool index = indexes && i == begin + 1;
      value = each(value, [&](const at::Tensor& tensor) {
        if (meets) refuse_other_devices(name, tensor, first, index);
        return lent.lend(tensor);
      });
    }
  }
  {
    at::AutoDispatchBelowADInplaceOrView below;
    op.callBoxed(stack);
  }
  lent.keep_up();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i)
    (*stack)[i] = each((*stack)[i], [&](const at::Tensor& tensor) { return lent.back(tensor, here); });
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>());
}

// Those that torch has for any device, by means that this one has not.
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&compute>());
}

}  // namespace
