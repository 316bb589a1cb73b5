// Makes the processors forget translations of the guest: kernel side.
#pragma once

#include <cstdint>
#include <xos/types.hpp>

#include "libxos/paging/stale_pages.hpp"

namespace xos::vm {

/// Flushes on this vCPU and on every other one that holds translations.
void flush(const paging::stale_pages& stale);
void flush_page(gva page);

/// The number of flushes so far, on any vCPU: a tagged TLB entry of another space may have missed
/// some.
extern std::uint64_t the_flushes;

/// Flushes a page on this CPU, which reads its own tables.
inline void invalidate(gva page) {
    asm volatile("invlpg (%0)" : : "r"(page.value) : "memory");
}

}  // namespace xos::vm
