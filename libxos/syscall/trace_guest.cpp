#include "libxos/arch/guest_area.hpp"
#include "libxos/syscall/trace.hpp"

extern "C" {

/// Called by local_calls_guest.S, on the system-call stack: `saved` is r10 r9 r8 rdx rsi rdi.
void xos_trace_local(std::uint64_t number, std::uint64_t began, long result,
                     const std::uint64_t* saved) {
    using namespace xos;
    if (!syscall::tracing()) return;
    syscall::local_record call{number,
                               {saved[5], saved[4], saved[3], saved[0], saved[2], saved[1]},
                               result,
                               began,
                               __builtin_ia32_rdtsc()};
    arch::call_host_from_kernel(
        [](void* record) {
            syscall::trace_local(*static_cast<const syscall::local_record*>(record));
        },
        &call);
}
}
