// Kernel side: makes vCPUs forget translations that allow too much.
//
// KVM has no call for it. But when Linux takes a page away that a guest has mapped, KVM must first
// make every vCPU in the guest leave it and flush. So this code takes away a page that nobody needs
// (Linux, virt/kvm/kvm_main.c, kvm_flush_remote_tlbs). A software KVM shadows the guest's tables
// and flushes the other vCPUs itself when one reloads CR3.
#include <linux/mman.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views/views.hpp"

extern "C" void xos_load_root_pvm(std::uint64_t root);

namespace xos::vm {

std::uint64_t the_flushes = 0;

namespace {

void reload_root() {
    std::uint64_t root;
    asm volatile("movq %%cr3, %0; movq %0, %%cr3" : "=r"(root) : : "memory");
}

void give_up_page(void* page) {
    base::raw_syscall(__NR_madvise, base::as_long(page), page_size, MADV_DONTNEED);
}

/// vCPUs that hold none check their flag before they continue.
bool others_hold_translations(const arch::guest_area& own) {
    auto& cell = cell::the_cell;
    const unsigned n = __atomic_load_n(&cell.contexts.count, __ATOMIC_ACQUIRE);
    bool some = false;
    for (unsigned i = 0; i < n; i++) {
        arch::guest_area& other = *cell.contexts.areas[i];
        if (&other == &own) continue;
        __atomic_exchange_n(&other.flush_wanted, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&other.holds_translations, __ATOMIC_SEQ_CST)) some = true;
    }
    return some;
}

void flush_others() {
    if (cell::the_cell.contexts.count < 2) return;
    const arch::guest_area& own = *arch::current_area();
    if (!others_hold_translations(own)) return;
    // KVM only flushes for a page that the guest has used, so the page is touched first.
    auto* page = reinterpret_cast<volatile char*>(cell::the_cell.guest.flush_page.value);
    *page = 1;
    arch::call_host_from_kernel(give_up_page, const_cast<char*>(page));
}

}  // namespace

void flush(const paging::stale_pages& stale) {
    if (!stale.any()) return;
    __atomic_fetch_add(&the_flushes, 1, __ATOMIC_SEQ_CST);
    if (cell::the_cell.current == mode::pvm) {
        xos_load_root_pvm(arch::current_area()->root);
        return;
    }
    if (stale.all())
        reload_root();
    else
        stale.for_each(invalidate);
    flush_others();
}

void flush_page(gva page) {
    __atomic_fetch_add(&the_flushes, 1, __ATOMIC_SEQ_CST);
    if (cell::the_cell.current == mode::pvm) {
        xos_load_root_pvm(arch::current_area()->root);
        return;
    }
    invalidate(page);
    flush_others();
}

}  // namespace xos::vm
