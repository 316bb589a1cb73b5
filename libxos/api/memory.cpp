#include <bit>
#include <new>
#include <xos/cell.hpp>
#include <xos/memory.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/api/gateway.hpp"
#include "libxos/api/zeroer.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/arenas/arena.hpp"
#include "libxos/vm/gateway.hpp"

namespace xos::memory {

namespace {

constexpr std::size_t largest = huge_page_size;

constexpr std::size_t round_up(std::size_t bytes) {
    return (bytes + page_size - 1) & ~(page_size - 1);
}

gva gva_of(const void* p) {
    return gva{reinterpret_cast<std::uint64_t>(p)};
}

arena_statistics statistics_of(vm::arena& a) {
    arena_statistics s;
    host_call([&] {
        if (!a.exists()) return;
        host_edit editing(cell::the_cell.space().lock());
        const buddy& pages = a.pages();
        s.reserved = a.length();
        s.usable = pages.available() * page_size;
        s.free = pages.free_pages() * page_size;
        s.allocated = s.usable - s.free;
        s.clean_free = pages.clean_free_pages() * page_size;
        if (s.free) s.largest_free = page_size << pages.largest_free_order();
        for (unsigned order = 0; order < s.free_blocks.size(); order++)
            s.free_blocks[order] = pages.free_blocks(order);
    });
    return s;
}

bool is_sound(vm::arena& a) {
    bool sound = false;
    host_call([&] {
        host_edit editing(cell::the_cell.space().lock());
        sound = !a.exists() || a.pages().check();
    });
    return sound;
}

}  // namespace

arena::arena(const options& o) {
    if (!started()) api::raise(errc::not_started, "memory::arena made before start()");
    const vm::arena_options wanted{.bytes = o.bytes,
                                   .free_memory = vm::visibility::always,
                                   .huge = o.huge_pages,
                                   .populate = o.populate,
                                   .node = o.node,
                                   .keep_dirty = o.keep_dirty};
    base::outcome failed;
    host_call([&] {
        failed = vm::make_arena(wanted, id_);
        if (!failed.ok()) return;
        core_ = vm::the_arenas.slots[id_];
        begin_ = core_->begin();
        frames_ = core_->frame_of(begin_);
        length_ = core_->length();
    });
    if (!failed.ok()) api::raise(failed);
    prefer_clean_ = o.zero_in_background;
    if (o.populate && inside()) {
        // Also touches it in the guest: each of the guest's own translations would cost an exit
        // later.
        for (std::size_t at = 0; at < o.bytes; at += page_size)
            (void)*reinterpret_cast<const volatile char*>(begin_.value + at);
    }
    if (o.zero_in_background) api::zero_in_background(*core_);
}

arena::~arena() {
    api::ignore_arena(*core_);
    host_call([&] { vm::give_up_arena(id_); });
}

void* arena::allocate(std::size_t bytes, contents wanted) noexcept {
    const std::size_t n = round_up(bytes);
    if (n == 0 || n > largest || n < bytes) return nullptr;
    const bool zeroed = wanted == contents::zeroed;
    const bool clean_first = zeroed && prefer_clean_;
    if (inside()) {
        return reinterpret_cast<void*>(
            api::gateway_call(vm::gateway_arena_allocate, static_cast<long>(id_),
                              static_cast<long>(n), zeroed, clean_first));
    }
    const auto first = clean_first ? buddy::preference::clean : buddy::preference::dirty;
    return reinterpret_cast<void*>(
        core_->allocate_in_host(n, zeroed ? vm::contents::zeroed : vm::contents::any, first).value);
}

bool arena::free(void* begin, std::size_t bytes) noexcept {
    const std::size_t n = round_up(bytes);
    if (n == 0 || n < bytes) return false;
    if (inside()) {
        return api::gateway_call(vm::gateway_arena_free, static_cast<long>(id_),
                                 reinterpret_cast<long>(begin), static_cast<long>(n));
    }
    return core_->free_in_host(gva_of(begin), n);
}

bool arena::owns(const void* p) const noexcept {
    return gva_of(p) - begin_ < length_;
}

gpa arena::frame_of(const void* p) const noexcept {
    return owns(p) ? frames_ + (gva_of(p) - begin_) : gpa{0};
}

std::size_t arena::trim(std::size_t keep) {
    std::size_t given = 0;
    host_call([&] { given = core_->trim_in_host(keep); });
    return given;
}

arena_statistics arena::statistics() const {
    return statistics_of(*core_);
}

bool arena::check() const {
    return is_sound(*core_);
}

arena_statistics process_arena_statistics() {
    return statistics_of(vm::the_process_arena);
}

bool check_process_arena() {
    return is_sound(vm::the_process_arena);
}

void* resource::do_allocate(std::size_t bytes, std::size_t alignment) {
    // A block is aligned to its size, rounded up to a power of two.
    const std::size_t wanted = bytes > alignment ? bytes : alignment;
    void* p = arena_.allocate(wanted ? wanted : 1);
    if (!p) throw std::bad_alloc();
    return p;
}

void resource::do_deallocate(void* p, std::size_t bytes, std::size_t alignment) {
    const std::size_t given = bytes > alignment ? bytes : alignment;
    arena_.free(p, given ? given : 1);
}

bool resource::do_is_equal(const std::pmr::memory_resource& other) const noexcept {
    const auto* same = dynamic_cast<const resource*>(&other);
    return same && &same->arena_ == &arena_;
}

}  // namespace xos::memory
