#include <linux/mman.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/vm/anonymous_edits.hpp"

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

void show_arena_to_linux() {
    using namespace anonymous;
    arena& a = memory_arena();
    if (!a.exists()) return;
    constexpr int unmapped = -1;
    memory::host_edit editing(lock());
    for_each_run(
        a.begin(), a.grown(),
        [](gva page) {
            const arch::entry e = entry_at(page);
            if (is_linux(e)) return PROT_READ | PROT_WRITE;  // Linux's already, whatever it is
            return is_mapped(e) ? protection_for(access_of(e)) : unmapped;
        },
        [](gva begin, std::uint64_t length, int protection) {
            const long at = static_cast<long>(begin.value), n = static_cast<long>(length);
            if (protection == unmapped)
                base::raw_syscall(__NR_munmap, at, n);
            else if (protection != (PROT_READ | PROT_WRITE))
                base::raw_syscall(__NR_mprotect, at, n, protection);
        });
    base::raw_syscall(__NR_munmap, static_cast<long>((a.begin() + a.grown()).value),
                      static_cast<long>(a.length() - a.grown()));
}

}  // namespace xos::vm
