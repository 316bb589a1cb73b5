// What this machine offers to a cell, without starting one.
//
//     const xos::features f = xos::probe_features();
//     if (!f.cell.can_start) std::cerr << f.cell.failure << '\n';
//
// `xos doctor` prints all of it, with advice.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstddef>
#include <string>
#include <vector>

namespace xos {

/// A kind of virtualization, of a processor or of a /dev/kvm.
enum class virtualization : unsigned {
    none,
    vmx,       ///< Intel's
    svm,       ///< AMD's
    software,  ///< a KVM that needs neither, runs guest ring 3 natively and interprets ring 0
};

/// "none", "vmx", "svm", "software".
[[nodiscard]] const char* name(virtualization v) noexcept;

/// An answer that the machine may keep to itself.
enum class answer : unsigned { unknown, no, yes };

/// Something that libxos uses and this KVM does not have.
struct missing_capability {
    enum class need : unsigned { required, advised };

    std::string name;        ///< as in <linux/kvm.h>
    std::string needed_for;  ///< the rest of a sentence that starts with "needed to"
    need how_much = need::required;
};

/// A pool of preallocated huge pages (hugetlb).
struct huge_page_pool {
    int node = -1;  ///< NUMA node; -1 when the kernel only tells the sum
    std::size_t page_bytes = 0;
    std::size_t total = 0, free = 0;  ///< pages
};

struct features {
    /// /dev/kvm, asked through the device itself.
    struct kvm_device {
        bool present = false;  ///< the file exists
        int open_error = 0;    ///< errno of opening it for reading and writing
        int api_version = 0;   ///< 12 on every KVM since Linux 2.6.22; 0 when it did not answer
        int api_version_error = 0;  ///< errno of asking; ENOTTY: the file is not KVM
        std::vector<missing_capability> missing;
        unsigned max_vcpus = 0;       ///< of one VM, and so threads in the cell at the same time
        unsigned max_slots = 0;       ///< memory slots of one VM
        unsigned physical_bits = 0;   ///< of a guest-physical address; 0: not said, libxos takes 36
        bool gigabyte_pages = false;  ///< guest page tables may map 1 GiB pages
    } kvm;

    /// From /proc/cpuinfo, the auxiliary vector and /sys/module.
    struct processor {
        virtualization extension = virtualization::none;  ///< what the processor has (vmx, svm)
        bool fsgsbase = false;  ///< Linux lets programs use the FSGSBASE instructions (AT_HWCAP2)
        bool xsave = false;     ///< Linux has enabled XSAVE
    } cpu;

    /// The vendor modules of KVM that are loaded or built in: kvm_intel, kvm_amd, kvm_pvm.
    std::vector<std::string> kvm_modules;
    virtualization kind = virtualization::none;  ///< what stands behind /dev/kvm
    std::string kind_reason;                     ///< how that is known, for people
    answer nested_paging = answer::unknown;      ///< EPT or NPT in use: guest faults without exits

    /// A cell that was tried out in a child process, or this process's own when it has one.
    struct cell_trial {
        bool can_start = false;
        int error = 0;        ///< errno of the step that failed; ETIMEDOUT, or 0 when it was killed
        std::string failure;  ///< what start() would say
        double ring0_nanoseconds = 0;  ///< of one instruction at guest ring 0; 0: too short
        bool ring0_interpreted = false;
    } cell;

    std::vector<huge_page_pool> huge_pages;  ///< 2 MiB and 1 GiB pools, by node
    std::string transparent_huge_pages;      ///< "always", "madvise", "never"; empty: not built in
    unsigned numa_nodes = 1;                 ///< online

    bool io_uring = false;
    int io_uring_error = 0;      ///< errno of io_uring_setup(2)
    int io_uring_disabled = -1;  ///< sysctl kernel.io_uring_disabled; -1: older than Linux 6.6
    /// What an io_queue (xos/io_queue.hpp) uses here: "io_uring" or "plain". Empty: none can be made.
    std::string io_queue;
    std::string io_queue_reason;  ///< why it is not io_uring

    std::string cgroup2;         ///< where cgroup v2 is mounted; empty: nowhere
    std::string kernel_release;  ///< as uname -r
    bool xos_module = false;     ///< /dev/xos is there (optional: the same, faster)

    /// The kernel module behind it, asked through the device.
    struct call_module {
        int open_error = 0;        ///< errno of opening it
        unsigned abi_version = 0;  ///< of its interface; 0 when it did not answer
        unsigned abi_wanted = 0;   ///< this library's
        /// How 16 MiB of fresh memory, huge pages advised, lie in physical memory.
        struct memory_layout {
            int error = 0;  ///< errno of asking; EPERM: needs CAP_SYS_ADMIN
            std::size_t bytes = 0;
            unsigned extents = 0;  ///< physically contiguous, on one node
            std::size_t largest = 0;
            int node = -1;  ///< of the largest
        } layout;
    } module;
};

/// Finds out all of this. It takes some milliseconds, most of them for the child process that tries
/// a cell. The process stays as it was. What is missing is recorded, and nothing is thrown for it.
/// Call on any thread, inside or outside, also before start().
[[nodiscard]] features probe_features();

}  // namespace xos

#endif  // C++20
