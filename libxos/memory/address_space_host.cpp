#include <linux/mman.h>

#include <algorithm>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/memory/address_space.hpp"
#include "libxos/memory/linux_mappings.hpp"

namespace xos::memory {

using base::outcome;
using base::step;
using paging::accessed_and_dirty;
using paging::protection;
using paging::status;

std::uint64_t machine_memory() {
    struct {
        long uptime;
        unsigned long loads[3], total, free, shared, buffers, swap, free_swap;
        unsigned short processes, padding;
        unsigned long high, free_high;
        unsigned unit;
        char rest[4];
    } info;
    if (base::raw_syscall(__NR_sysinfo, base::as_long(&info)) != 0) return 0;
    return std::uint64_t{info.total} * info.unit;
}

outcome address_space::create(kvm::machine& machine, system_arena& arena,
                              arena_visibility visibility) {
    machine_ = &machine;
    arena_ = &arena;
    long r = base::raw_syscall(__NR_mmap, 0, max_regions * sizeof(region), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base::is_error(r)) return {step::reserve_memory, static_cast<int>(-r)};
    regions_ = reinterpret_cast<region*>(r);
    note_own(gva{static_cast<std::uint64_t>(r)}, max_regions * sizeof(region));

    const region own{gva{arena.begin().value}, physical_.allocate(arena.begin(), arena.size()),
                     arena.begin(), arena.size()};
    if (!own.physical.value) return {step::physical_address_space, 0};
    if (auto failed = add_region(own); !failed.ok()) return failed;
    frames_.attach(arena, own.physical);
    if (tables_.create() != status::ok) return {step::page_tables, base::error::nomem};

    const std::uint64_t kernel_part = arena.user_begin() - arena.begin();
    const protection kernel =
        visibility == arena_visibility::kernel_hidden ? protection::writable : everything;
    if (tables_.map(own.guest, own.physical, kernel_part, kernel, arch::level::page_2m,
                    accessed_and_dirty) != status::ok ||
        tables_.map(own.guest + kernel_part, own.physical + kernel_part, own.length - kernel_part,
                    everything, arch::level::page_2m, accessed_and_dirty) != status::ok) {
        return {step::page_tables, base::error::nomem};
    }
    return base::success;
}

outcome address_space::add_region(const region& r) {
    end_pending(true);
    if (region_count_ == max_regions) return {step::memory_slot, base::error::nospc};
    if (auto failed = machine_->add_slot(r.physical, r.host, r.length); !failed.ok()) return failed;
    regions_[region_count_++] = r;
    return base::success;
}

address_space::chunk_result address_space::add_chunk(gva address, outcome& failure) {
    if (address.value >= user_end) return chunk_result::not_user_memory;
    const gva begin = address.align_down(chunk_size);
    const std::uint64_t end =
        begin.value + chunk_size < user_end ? begin.value + chunk_size : user_end;

    host_edit editing(lock());
    for (unsigned i = 0; i < exclusion_count_; i++) {
        if (address >= exclusions_[i].begin && address < exclusions_[i].end) {
            return chunk_result::not_user_memory;
        }
    }
    if (!end_pending(false)) return chunk_result::later;
    if (tables_.query(address)) {
        if (on_new_tables) on_new_tables();
        return chunk_result::already_there;
    }
    const std::uint64_t length = end - begin.value;
    const hva host{begin.value};
    region chunk{begin, gpa{0}, host, length, !keeps_new_chunks_};
    unsigned slot = region_count_;
    if (chunks_ < most_chunks_ && region_count_ < max_regions)
        chunk.physical = physical_.allocate(host, length);
    if (!chunk.physical.value && !recycle_oldest_chunk(chunk, slot)) {
        failure = {step::physical_address_space, 0};
        return chunk_result::failed;
    }
    if (adds_apart_) return add_apart(chunk, slot, failure);
    if (slot == region_count_) {
        failure = add_region(chunk);
    } else {
        failure = machine_->replace_slot(slot, chunk.physical, chunk.host, chunk.length);
        if (failure.ok()) regions_[slot] = chunk;
    }
    if (failure.ok()) failure = add_mapped(regions_[slot]);
    return failure.ok() ? chunk_result::added : chunk_result::failed;
}

bool address_space::find_oldest_chunk(unsigned& found) {
    for (unsigned n = 0; n < region_count_; n++) {
        if (oldest_ >= region_count_) oldest_ = 0;
        const unsigned candidate = oldest_++;
        // Only a whole chunk has the addresses that another whole chunk needs.
        if (!regions_[candidate].can_be_recycled || regions_[candidate].length != chunk_size)
            continue;
        found = candidate;
        return true;
    }
    return false;
}

/// Gives the oldest chunk's slot and guest-physical addresses to `chunk`, which is not visible yet.
bool address_space::recycle_oldest_chunk(region& chunk, unsigned& slot) {
    if (chunk.length != chunk_size || !find_oldest_chunk(slot)) return false;
    const region& old = regions_[slot];
    // Removing the slot flushes what the vCPUs have cached.
    if (tables_.unmap(old.guest, old.length) != status::ok) return false;
    chunk.physical = old.physical;
    chunks_--;
    recycled_++;
    return true;
}

void address_space::keep_visible_chunks() {
    constexpr std::uint64_t least = std::uint64_t{256} << 30;
    constexpr unsigned for_arenas = max_regions / 4;
    const std::uint64_t wanted = std::max(least, 2 * machine_memory()) / chunk_size;
    most_chunks_ = static_cast<unsigned>(std::min<std::uint64_t>(wanted, max_regions - for_arenas));
    keeps_new_chunks_ = false;
}

outcome address_space::add_mapped(region& chunk) {
    for (std::uint64_t at = 0; at < chunk.length; at += large_page_size) {
        // The last chunk ends within a large page; the part that overlaps libxos's own memory is
        // mapped already.
        const std::uint64_t left = chunk.length - at;
        const std::uint64_t piece = left < large_page_size ? left : large_page_size;
        const status s = tables_.map(chunk.guest + at, chunk.physical + at, piece, not_code,
                                     arch::level::page_2m, accessed_and_dirty);
        if (s == status::occupied)
            chunk.can_be_recycled = false;
        else if (s != status::ok)
            return {step::page_tables, base::error::nomem};
    }
    chunks_++;
    if (on_new_tables) on_new_tables();
    return base::success;
}

address_space::chunk_result address_space::add_apart(const region& chunk, unsigned slot,
                                                     outcome& failure) {
    pending_.chunk = chunk;
    pending_.slot = slot;
    pending_.removes = slot != region_count_;
    const std::uint64_t length = pending_.removes ? 0 : chunk.length;
    if (failure = machine_->begin_slot(pending_.request, slot, chunk.physical, chunk.host, length);
        !failure.ok())
        return chunk_result::failed;
    pending_.exists = true;
    // Usually no vCPU is in such a fault.
    constexpr int patience = 100;
    for (int i = 0; i < patience; i++) {
        if (end_pending(false))
            return tables_.query(chunk.guest) ? chunk_result::added : chunk_result::failed;
        base::raw_syscall(__NR_sched_yield);
    }
    return chunk_result::later;
}

/// Whether no slot is being added any more.
bool address_space::end_pending(bool wait) {
    while (pending_.exists) {
        if (__atomic_load_n(&pending_.request.result, __ATOMIC_ACQUIRE) ==
            kvm::machine::in_progress) {
            if (!wait) return false;
            base::raw_syscall(__NR_sched_yield);
            continue;
        }
        pending_.exists = false;
        if (!machine_->end_slot(pending_.request).ok()) return true;
        const region& chunk = pending_.chunk;
        if (pending_.removes) {
            pending_.removes = false;
            pending_.exists = machine_
                                  ->begin_slot(pending_.request, pending_.slot, chunk.physical,
                                               chunk.host, chunk.length)
                                  .ok();
            continue;
        }
        regions_[pending_.slot] = chunk;
        if (pending_.slot == region_count_) region_count_++;
        (void)add_mapped(regions_[pending_.slot]);
    }
    return true;
}

/// Handles a part without pages of libxos's own.
bool address_space::set_executable_within(gva begin, std::uint64_t length, bool executable) {
    bool differs = false;
    tables_.for_each_leaf(begin, length, [&](const paging::leaf_mapping& l) {
        differs = differs || any(l.flags & arch::entry_flags::no_execute) == executable;
    });
    // An edit splits large leaves at both ends of the range, so it is made only when it changes
    // something.
    return !differs ||
           tables_.protect(begin, length, executable ? everything : not_code) == status::ok;
}

bool address_space::set_executable(gva begin, std::uint64_t length, bool executable) {
    if (begin.value >= user_end) return true;
    const gva end{length < user_end - begin.value ? begin.value + length : user_end};
    host_edit editing(lock());
    while (begin < end) {
        gva next = end, beyond = end;  // where memory of libxos's own begins, and ends
        const auto pass_over = [&](gva own_begin, gva own_end) {
            if (own_end <= begin || own_begin >= next) return;
            next = own_begin < begin ? begin : own_begin;
            beyond = own_end;
        };
        pass_over(gva{arena_->begin().value}, gva{arena_->end().value});
        for (unsigned i = 0; i < exclusion_count_; i++)
            pass_over(exclusions_[i].begin, exclusions_[i].end);
        if (next > begin && !set_executable_within(begin, next - begin, executable)) return false;
        begin = beyond;
    }
    return true;
}

bool address_space::find_code(gva address) {
    const gva begin = address.align_down(chunk_size), end = begin + chunk_size;
    bool found = false;
    const bool known = for_each_linux_mapping([&](const linux_mapping& m) {
        if (m.end <= begin || !m.executable) return true;
        if (m.begin >= end) return false;
        const gva first = m.begin > begin ? m.begin : begin, last = m.end < end ? m.end : end;
        if (set_executable(first, last - first, true) && address >= first && address < last)
            found = true;
        return true;
    });
    // Running what Linux might refuse is better than refusing what it would run.
    if (!known) return set_executable(address.align_down(page_size), page_size, true);
    return found;
}

outcome address_space::reveal_code() {
    outcome failure = base::success;
    gva next{0};  // the first address whose chunk has not been looked at
    for_each_linux_mapping([&](const linux_mapping& m) {
        if (!m.executable || m.begin.value >= user_end) return failure.ok();
        // The rest of a very large mapping becomes visible when it is used.
        constexpr std::uint64_t most = 8 * chunk_size;
        const gva end = m.end - m.begin < most ? m.end : m.begin + most;
        for (gva at = m.begin > next ? m.begin : next; at < end && failure.ok(); at = next) {
            add_chunk(at, failure);
            next = at.align_down(chunk_size) + chunk_size;
        }
        if (failure.ok() && !set_executable(m.begin, m.end - m.begin, true))
            failure = {step::page_tables, base::error::nomem};
        return failure.ok();
    });
    return failure;
}

outcome address_space::exclude(gva begin, gva end) {
    host_edit editing(lock());
    if (exclusion_count_ == max_exclusions) return {step::reserve_memory, base::error::nospc};
    exclusions_[exclusion_count_++] = {begin, end};
    for (unsigned i = 0; i < region_count_; i++) {
        region& r = regions_[i];
        if (r.guest < end && begin < r.guest + r.length) r.can_be_recycled = false;
    }
    return base::success;
}

void address_space::readmit(gva begin) {
    host_edit editing(lock());
    for (unsigned i = 0; i < exclusion_count_; i++) {
        if (exclusions_[i].begin == begin) {
            exclusions_[i] = exclusions_[--exclusion_count_];
            return;
        }
    }
}

void address_space::note_own(gva begin, std::uint64_t length) {
    if (own_count_ < max_own) own_[own_count_++] = {begin, length};
}

bool address_space::overlaps_own(gva begin, std::uint64_t length) const {
    for (unsigned i = 0; i < own_count_; i++) {
        if (begin < own_[i].begin + own_[i].length && begin + length > own_[i].begin) return true;
    }
    return false;
}

outcome address_space::add_frames(hva begin, std::uint64_t length, region& made) {
    host_edit editing(lock());
    made = {gva{begin.value}, physical_.allocate(begin, length), begin, length};
    if (!made.physical.value) return {step::physical_address_space, 0};
    if (auto failed = add_region(made); !failed.ok()) return failed;
    const status s = tables_.map(made.guest, made.physical, length, everything,
                                 arch::level::page_2m, accessed_and_dirty);
    if (on_new_tables) on_new_tables();
    return s == status::ok ? base::success : outcome{step::page_tables, base::error::nomem};
}

outcome address_space::attach_to(kvm::machine& machine) {
    machine_ = &machine;
    pending_.exists = false;  // the parent's
    for (unsigned i = 0; i < region_count_; i++) {
        const region& r = regions_[i];
        if (auto failed = machine.add_slot(r.physical, r.host, r.length); !failed.ok())
            return failed;
    }
    return base::success;
}

}  // namespace xos::memory
