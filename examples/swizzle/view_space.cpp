// The cell owns the page tables, so a page appears by one store into them, and the fault handler is
// a function call away from the code that faulted. Only the file is Linux's.
#include <algorithm>
#include <system_error>
#include <vector>
#include <xos/cell.hpp>
#include <xos/stats.hpp>
#include <xos/trap.hpp>
#include <xos/view.hpp>

#include "object_space.hpp"

namespace swizzle {

namespace {

void require(xos::vm::map_result r) {
    if (r != xos::vm::map_result::ok) throw std::runtime_error(xos::vm::to_string(r));
}

class view_space final : public object_space {
  public:
    view_space(std::size_t pages, std::size_t frames, xos::mode mode)
        : bytes_(pages * xos::page_size) {
        try {
            xos::start({.mode = mode, .frame_arena = frames * xos::page_size});
        } catch (const std::system_error& e) {
            throw not_available(e.what());
        }
        view_ = xos::view(bytes_);
        for (std::size_t i = 0; i < frames; i++) frames_.push_back(xos::vm::allocate_frame());
    }

    void serve(const provider& provide, const std::function<void()>& work) override {
        provide_ = &provide;
        const auto handler = xos::on_fault(view_.begin(), bytes_, on_fault, this);
        const xos::scoped_entry inside;
        work();
    }

    std::byte* base() override { return static_cast<std::byte*>(view_.data()); }

    // System calls do not see the view, but they do see frames.
    std::byte* incoming(std::size_t frame) override {
        return static_cast<std::byte*>(xos::vm::frame_data(frames_[frame]));
    }
    const std::byte* contents(placement where) override { return incoming(where.frame); }

    void map(placement where, intent allowed) override {
        // Permissions grow, so nothing is flushed.
        require(xos::vm::map(
            address_of(where.page), frames_[where.frame],
            allowed == intent::write ? xos::vm::access::read_write : xos::vm::access::read));
    }

    void unmap(std::span<const placement> pages) override {
        changes_.clear();
        for (const placement& p : pages) changes_.unmap(address_of(p.page), xos::page_size);
        require(changes_.commit());  // one flush
    }

    void take_accessed(std::uint64_t* bits) override {
        constexpr bool clear = true;
        require(xos::vm::scan(view_.begin(), bytes_, xos::vm::usage::accessed, clear, bits).result);
    }

    std::optional<std::uint64_t> exits() const override { return xos::thread_exits(); }

  private:
    static xos::verdict on_fault(xos::trap_frame& frame, void* argument) {
        auto& self = *static_cast<view_space*>(argument);
        const xos::page_fault fault = xos::page_fault_of(frame);
        (*self.provide_)((fault.address - self.view_.begin()) / xos::page_size,
                         fault.write ? intent::write : intent::read);
        return xos::verdict::resume;  // the access is made again
    }

    xos::gva address_of(std::size_t page) const { return view_.begin() + page * xos::page_size; }

    std::size_t bytes_;
    xos::view view_;
    std::vector<xos::gpa> frames_;
    xos::vm::batch changes_;
    const provider* provide_ = nullptr;
};

}  // namespace

std::unique_ptr<object_space> make_view(std::size_t pages, std::size_t frames, xos::mode mode) {
    return std::make_unique<view_space>(pages, frames, mode);
}

}  // namespace swizzle
