// RLIMIT_NOFILE of a process that may lower it for good and later start threads, or fork: libxos's
// descriptors have numbers above it.
//
// The kernel's hard limit stays what it was, so that `descriptor_set::room` can raise the soft one.
// Otherwise the soft limit is always the application's, and Linux enforces it.
#pragma once

#include <cstdint>

namespace xos::kvm {

struct resource_limit {
    std::uint64_t soft, hard;
};

class descriptor_limit {
  public:
    /// Makes prlimit(2) of the calling process for the application; either pointer may be null. Not
    /// while there is a `room`.
    long change(const resource_limit* wanted, resource_limit* old);
    /// Makes the application's limits the kernel's: before exec, or in a child that only borrows
    /// this memory.
    void make_real() const;

  private:
    static constexpr std::uint64_t as_in_kernel = ~std::uint64_t{0};

    /// The hard limit that the application sees.
    std::uint64_t hard_ = as_in_kernel;
};

}  // namespace xos::kvm
