#include <linux/mman.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/vm/anonymous.hpp"

namespace xos::vm {

void restore_memory(gva begin, std::uint64_t length) {
    const long at = static_cast<long>(begin.value), n = static_cast<long>(length);
    const long r =
        base::raw_syscall(__NR_mmap, at, n, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (base::is_error(r))
        cell::die(nullptr, "Linux took a part of the process arena and gives no memory back",
                  static_cast<std::uint64_t>(-r));
    advise(begin, length, the_process_arena.options().pager);
}

}  // namespace xos::vm
