#include <bit>
#include <xos/cell.hpp>
#include <xos/pager.hpp>

#include "libxos/api/errors.hpp"

namespace xos {

namespace {

std::size_t unit_of(const paged_view::options& o) {
    switch (o.policy) {
        case paging_policy::demand:
            return page_size;
        case paging_policy::huge:
            return large_page_size;
        case paging_policy::prepage:
            break;
    }
    if (!std::has_single_bit(o.window) || o.window < 2 * page_size ||
        o.window > large_page_size / 2)
        api::raise(errc::bad_argument, "a pre-paging window is a power of two from 8 KiB to 1 MiB");
    return o.window;
}

std::span<std::byte> bytes_at(void* data, std::size_t n) {
    return {static_cast<std::byte*>(data), n};
}

}  // namespace

paged_view::paged_view(const options& o, memory::arena& frames, pager* contents)
    : frames_(frames),
      contents_(contents),
      unit_(unit_of(o)),
      units_((o.bytes + unit_ - 1) / unit_),
      allowed_(o.allowed) {
    view_ = view(o.bytes);
    slots_ = std::make_unique<slot[]>(units_);
    handler_ = on_fault(begin(), bytes(), on_missing, this);
}

paged_view::~paged_view() {
    if (inside()) {
        evict(begin(), bytes());
    } else {
        const scoped_entry moment;
        evict(begin(), bytes());
    }
}

verdict paged_view::on_missing(trap_frame& frame, void* self) {
    const auto fault = page_fault_of(frame);
    auto& view = *static_cast<paged_view*>(self);
    const std::size_t unit = (fault.address - view.begin()) / view.unit_;
    if (fault.kind() == fault_kind::missing)
        return view.bring(unit) ? verdict::resume : verdict::pass;
    const bool may_write = static_cast<unsigned>(view.allowed_) & 2;
    if (fault.kind() != fault_kind::write_protected || !may_write) return verdict::pass;
    // The page is being evicted, or was when the access was made.
    view.slots_[unit].now.wait(changing, std::memory_order_acquire);
    return verdict::resume;
}

bool paged_view::map(std::size_t unit, void* data) {
    vm::batch b;
    b.map_unused(begin() + unit * unit_, unit_, frames_.frame_of(data), allowed_,
                 unit_ == large_page_size ? vm::leaf::page_2m : vm::leaf::page_4k);
    return b.commit() == vm::map_result::ok;
}

bool paged_view::bring(std::size_t unit) {
    slot& s = slots_[unit];
    std::uint32_t now = absent;
    if (!s.now.compare_exchange_strong(now, changing, std::memory_order_acquire)) {
        // Another thread is handling the page, or has just done so: the access is made again.
        if (now == changing) s.now.wait(changing, std::memory_order_acquire);
        return true;
    }
    void* data = frames_.allocate(unit_, memory::contents::zeroed);
    const bool filled =
        data && (!contents_ || contents_->fill(unit * unit_, bytes_at(data, unit_)));
    const bool done = filled && map(unit, data);
    if (data && !done) frames_.free(data, unit_);
    if (done) {
        s.data = data;
        resident_.fetch_add(1, std::memory_order_relaxed);
        faults_.fetch_add(1, std::memory_order_relaxed);
    }
    s.now.store(done ? present : absent, std::memory_order_release);
    s.now.notify_all();
    return done;
}

std::size_t paged_view::evict(gva first, std::size_t length) {
    if (first < begin() || length > bytes() || first - begin() > bytes() - length)
        api::raise(errc::bad_argument, "evict() of what is not in the view");
    if (!inside()) api::raise(errc::not_inside, "evict() called outside; enter() first");
    if (length == 0) return 0;
    std::size_t gone = 0;
    const std::size_t last = (first - begin() + length - 1) / unit_;
    for (std::size_t unit = (first - begin()) / unit_; unit <= last; unit++) {
        slot& s = slots_[unit];
        std::uint32_t now = present;
        if (!s.now.compare_exchange_strong(now, changing, std::memory_order_acquire)) continue;
        const gva at = begin() + unit * unit_;
        // No write can happen between reading the bits and ending the mapping.
        vm::batch b;
        b.protect(at, unit_, vm::access::read);
        (void)b.commit();  // whole pages of the view cannot be refused
        bool dirty = false;
        const std::size_t step =
            vm::query(at).size == vm::leaf::page_2m ? large_page_size : page_size;
        for (std::size_t offset = 0; offset < unit_ && !dirty; offset += step)
            dirty = vm::query(at + offset).dirty;
        if (contents_) contents_->evict(unit * unit_, bytes_at(s.data, unit_), dirty);
        vm::batch away;
        away.unmap(at, unit_);
        (void)away.commit();
        frames_.free(s.data, unit_);
        s.data = nullptr;
        gone++;
        resident_.fetch_sub(1, std::memory_order_relaxed);
        s.now.store(absent, std::memory_order_release);
        s.now.notify_all();
    }
    return gone;
}

}  // namespace xos
