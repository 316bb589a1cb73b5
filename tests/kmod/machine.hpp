// The smallest VM that can ring the module's doorbell: each vCPU executes OUT to the doorbell's
// port as often as it is told, and halts. Its frame lies in this process's memory, where the guest
// never looks.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <vector>

#include "kmod/xos_uapi.h"

namespace xos::test {

inline constexpr unsigned doorbell_port = 0x512;

/// How a run came back.
struct returned {
    enum class why { halted, punted, interrupted, failed } what;
    int error = 0;  ///< errno of KVM_RUN, when it failed
    friend bool operator==(const returned&, const returned&) = default;
};
std::ostream& operator<<(std::ostream& out, const returned& r);

/// A call for a frame or a vector.
xos_call call(std::uint64_t number, std::initializer_list<std::uint64_t> arguments = {});
template <class T>
std::uint64_t address_of(const T* p) {
    return reinterpret_cast<std::uint64_t>(p);
}

/// By number: XOS_CALL_MADE with looks.
using call_list = std::array<std::uint32_t, XOS_CALLS>;
/// Every call that the module can make, without a look.
extern const call_list all_calls;

class machine {
  public:
    /// The VM with `vcpus` vCPUs, attached unless told otherwise. XOS_TEST_LOOP in the environment:
    /// the module was loaded with loop=1, and is expected to say so.
    enum class attachment { none, all_calls };
    explicit machine(unsigned vcpus = 1, attachment how = attachment::all_calls);
    ~machine();
    machine(const machine&) = delete;
    machine& operator=(const machine&) = delete;

    int vm() const { return vm_; }
    int vcpu(unsigned i) const { return vcpus_[i].fd; }
    int device() const { return device_; }
    xos_frame& frame(unsigned i = 0) { return *vcpus_[i].frame; }
    bool loops() const { return loops_; }

    int attach(int vm, const call_list& calls = all_calls, unsigned version = XOS_ABI_VERSION);
    int guard(const xos_guard& range);
    int add_vcpu(unsigned i, const xos_frame* frame);

    /// Starts vCPU `i` at its first instruction, to ring `times`, and runs it.
    returned ring(unsigned i = 0, std::uint64_t times = 1);
    /// Runs it on. Of a punted doorbell the OUT is complete then.
    returned run(unsigned i = 0);
    /// Makes one call through the frame; as ring().
    returned make(const xos_call& c, unsigned i = 0);
    xos_statistics statistics() const;

    /// Set before attaching: XOS_DESCRIPTORS bits.
    const std::uint64_t* descriptors = nullptr;

  private:
    struct one_vcpu {
        int fd = -1;
        kvm_run* page = nullptr;
        xos_frame* frame = nullptr;
    };
    void add_memory();
    void note_form();
    void set_registers(one_vcpu& v);

    int system_ = -1, vm_ = -1, device_ = -1;
    unsigned char* memory_ = nullptr;
    std::vector<one_vcpu> vcpus_;
    bool loops_ = false;
};

}  // namespace xos::test
