#include "tests/kmod/machine.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

extern "C" {
extern const char xos_test_guest[], xos_test_guest_end[];
}
// RDX = port, RCX = how often. KVM completes an OUT that user space has seen if RIP is still there
// when it runs again: a new beginning is elsewhere.
asm(".section .rodata\n"
    ".globl xos_test_guest, xos_test_guest_end\n"
    "xos_test_guest:\n"
    "   nop\n"
    "1: outl %eax, %dx\n"
    "   decq %rcx\n"
    "   jnz 1b\n"
    "   hlt\n"
    "xos_test_guest_end:\n"
    ".text\n");

namespace xos::test {

namespace {

constexpr std::size_t memory_bytes = 1 << 21;
constexpr std::uint64_t code_at = 0x10000, tables_at = 0x1000;

int checked(int result, const char* what) {
    if (result < 0) throw std::system_error(errno, std::system_category(), what);
    return result;
}

kvm_segment segment(unsigned type, bool code) {
    kvm_segment s{};
    s.limit = ~0u;
    s.selector = code ? 8 : 16;
    s.type = static_cast<std::uint8_t>(type);
    s.present = s.s = s.g = 1;
    s.l = code;
    s.db = !code;
    return s;
}

}  // namespace

const call_list all_calls = [] {
    call_list calls;
    calls.fill(XOS_CALL_MADE);
    return calls;
}();

std::ostream& operator<<(std::ostream& out, const returned& r) {
    constexpr const char* names[] = {"halted", "punted", "interrupted", "failed"};
    return out << names[static_cast<int>(r.what)] << " " << r.error;
}

xos_call call(std::uint64_t number, std::initializer_list<std::uint64_t> arguments) {
    xos_call c{};
    c.number = number;
    unsigned i = 0;
    for (std::uint64_t a : arguments) c.arguments[i++] = a;
    c.result = 0xdead;
    return c;
}

machine::machine(unsigned vcpus, attachment how) : vcpus_(vcpus) {
    system_ = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    vm_ = checked(ioctl(system_, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    ioctl(vm_, KVM_SET_TSS_ADDR, 0xfffbd000ul);
    add_memory();
    const int bytes = checked(ioctl(system_, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    for (unsigned i = 0; i < vcpus; i++) {
        auto& v = vcpus_[i];
        v.fd = checked(ioctl(vm_, KVM_CREATE_VCPU, i), "KVM_CREATE_VCPU");
        void* page = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                          MAP_SHARED, v.fd, 0);
        v.page = static_cast<kvm_run*>(page);
        void* frame =
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        v.frame = static_cast<xos_frame*>(frame);
        set_registers(v);
    }
    if (how == attachment::none) return;
    device_ = checked(open("/dev/xos", O_RDWR | O_CLOEXEC), "/dev/xos");
    checked(attach(vm_), "XOS_IOC_ATTACH");
    for (unsigned i = 0; i < vcpus; i++) checked(add_vcpu(i, vcpus_[i].frame), "XOS_IOC_VCPU");
}

machine::~machine() {
    for (const auto& v : vcpus_) close(v.fd);
    close(vm_);
    close(system_);
    if (device_ >= 0) close(device_);
}

void machine::add_memory() {
    void* at =
        mmap(nullptr, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memory_ = static_cast<unsigned char*>(at);
    kvm_userspace_memory_region region{0, 0, 0, memory_bytes, address_of(memory_)};
    checked(ioctl(vm_, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    std::memcpy(memory_ + code_at, xos_test_guest,
                static_cast<std::size_t>(xos_test_guest_end - xos_test_guest));
    // 2 MiB, mapped by one large page.
    auto* tables = reinterpret_cast<std::uint64_t*>(memory_ + tables_at);
    tables[0] = (tables_at + 0x1000) | 7;
    tables[512] = (tables_at + 0x2000) | 7;
    tables[1024] = 0x87;
}

void machine::set_registers(one_vcpu& v) {
    kvm_sregs s;
    checked(ioctl(v.fd, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
    s.cs = segment(11, true);
    s.ds = s.es = s.ss = s.fs = s.gs = segment(3, false);
    s.cr0 = 0x80050033;
    s.cr3 = tables_at;
    s.cr4 = 0x620;
    s.efer = 0x500;
    checked(ioctl(v.fd, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
}

int machine::attach(int vm, const call_list& calls, unsigned version) {
    if (device_ < 0) device_ = checked(open("/dev/xos", O_RDWR | O_CLOEXEC), "/dev/xos");
    xos_attach a{};
    a.abi_version = version;
    a.vm_fd = vm;
    a.max_vcpus = 64;
    a.port = doorbell_port;
    a.calls = address_of(calls.data());
    a.descriptors = address_of(descriptors);
    const int result = ioctl(device_, XOS_IOC_ATTACH, &a);
    if (result == 0) note_form();
    return result;
}

void machine::note_form() {
    xos_info info{};
    checked(ioctl(device_, XOS_IOC_INFO, &info), "XOS_IOC_INFO");
    loops_ = !(info.features & XOS_FEATURE_BUS);
    if (loops_ != (std::getenv("XOS_TEST_LOOP") != nullptr))
        throw std::runtime_error(loops_ ? "the module does not use KVM's port bus"
                                        : "the module uses KVM's port bus in spite of loop=1");
}

int machine::add_vcpu(unsigned i, const xos_frame* frame) {
    xos_vcpu v{i, 0, address_of(frame)};
    return ioctl(device_, XOS_IOC_VCPU, &v);
}

int machine::guard(const xos_guard& range) {
    return ioctl(device_, XOS_IOC_GUARD, &range);
}

returned machine::ring(unsigned i, std::uint64_t times) {
    kvm_regs r{};
    r.rip = code_at;
    r.rflags = 2;
    r.rdx = doorbell_port;
    r.rcx = times;
    checked(ioctl(vcpus_[i].fd, KVM_SET_REGS, &r), "KVM_SET_REGS");
    return run(i);
}

returned machine::run(unsigned i) {
    auto& v = vcpus_[i];
    xos_run how{v.fd, i, address_of(v.page)};
    const int result = loops_ ? ioctl(device_, XOS_IOC_RUN, &how) : ioctl(v.fd, KVM_RUN, 0);
    if (result < 0) {
        return {errno == EINTR ? returned::why::interrupted : returned::why::failed,
                errno == EINTR ? 0 : errno};
    }
    switch (v.page->exit_reason) {
        case KVM_EXIT_HLT:
            return {returned::why::halted};
        case KVM_EXIT_IO:
            if (v.page->io.port == doorbell_port) return {returned::why::punted};
            [[fallthrough]];
        default:
            return {returned::why::failed, static_cast<int>(v.page->exit_reason)};
    }
}

returned machine::make(const xos_call& c, unsigned i) {
    frame(i).call = c;
    return ring(i);
}

xos_statistics machine::statistics() const {
    xos_statistics s{};
    checked(ioctl(device_, XOS_IOC_STATISTICS, &s), "XOS_IOC_STATISTICS");
    return s;
}

}  // namespace xos::test
