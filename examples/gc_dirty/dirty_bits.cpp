// The processor notes the first write to each page in the page table. Nobody is interrupted, and
// whoever owns the table reads and clears the notes with ordinary loads and stores.
#include <system_error>
#include <xos/cell.hpp>
#include <xos/stats.hpp>
#include <xos/view.hpp>

#include "tracked_memory.hpp"

namespace gc_dirty {

namespace {

void require(xos::vm::map_result r) {
    if (r != xos::vm::map_result::ok) throw std::runtime_error(xos::vm::to_string(r));
}

class dirty_bits final : public tracked_memory {
  public:
    dirty_bits(std::size_t pages, xos::mode mode) : bytes_(pages * xos::page_size) {
        try {
            xos::start({.mode = mode, .frame_arena = bytes_});
        } catch (const std::system_error& e) {
            throw not_available(e.what());
        }
        view_ = xos::view(bytes_, xos::vm::leaf::page_4k, xos::view::frames::freed);
        inside([&] {
            xos::vm::batch changes;
            changes.map_new(view_.begin(), bytes_, xos::vm::access::read_write);
            require(changes.commit());
        });
    }

    void inside(const std::function<void()>& work) override {
        const xos::scoped_entry entry;
        work();
    }
    std::byte* data() override { return static_cast<std::byte*>(view_.data()); }

    void start_tracking() override {
        page_set ignored(bytes_ / xos::page_size);
        take_changed(ignored);
    }

    void take_changed(page_set& changed) override {
        constexpr bool clear = true;
        require(xos::vm::scan(view_.begin(), bytes_, xos::vm::usage::dirty, clear, changed.words())
                    .result);
    }

    std::optional<std::uint64_t> exits() const override { return xos::thread_exits(); }

  private:
    std::size_t bytes_;
    xos::view view_;
};

}  // namespace

std::unique_ptr<tracked_memory> make_dirty_bits(std::size_t pages, xos::mode mode) {
    return std::make_unique<dirty_bits>(pages, mode);
}

}  // namespace gc_dirty
