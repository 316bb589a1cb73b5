// What collectors and databases do where the kernel owns the page tables: each first write to a
// page costs a fault, a signal, a system call in its handler, and the return from the signal.
#include <signal.h>

#include "linux_memory.hpp"
#include "tracked_memory.hpp"

namespace gc_dirty {

namespace {

class write_protection final : public tracked_memory {
  public:
    explicit write_protection(std::size_t pages) : memory_(pages), written_(pages) {
        struct sigaction action {};
        action.sa_sigaction = on_segv;
        action.sa_flags = SA_SIGINFO;
        active_ = this;
        if (::sigaction(SIGSEGV, &action, &before_) != 0)
            throw std::system_error(errno, std::generic_category(), "sigaction");
    }
    ~write_protection() override {
        ::sigaction(SIGSEGV, &before_, nullptr);
        active_ = nullptr;
    }

    std::byte* data() override { return memory_.data(); }

    void start_tracking() override {
        written_.clear();
        if (::mprotect(memory_.data(), memory_.bytes(), PROT_READ) != 0)
            throw std::system_error(errno, std::generic_category(), "mprotect");
    }
    void take_changed(page_set& changed) override {
        changed = written_;
        start_tracking();
    }

  private:
    static void on_segv(int, siginfo_t* info, void*) {
        const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(info->si_addr) -
                                                     active_->memory_.data());
        // Not ours: the access is made again, and this time it kills.
        if (offset >= active_->memory_.bytes())
            ::signal(SIGSEGV, SIG_DFL);
        else
            active_->open_page(offset / xos::page_size);
    }

    void open_page(std::size_t page) {
        written_.insert(page);
        std::byte* at = memory_.data() + page * xos::page_size;
        if (::mprotect(at, xos::page_size, PROT_READ | PROT_WRITE) == 0) return;
        // Each page of other protection than its neighbours is a mapping of its own, and Linux
        // allows only so many (vm.max_map_count). Then every page counts as written.
        written_.fill();
        if (::mprotect(memory_.data(), memory_.bytes(), PROT_READ | PROT_WRITE) != 0)
            ::signal(SIGSEGV, SIG_DFL);
    }

    static inline write_protection* active_ = nullptr;

    linux_memory memory_;
    page_set written_;
    struct sigaction before_ {};
};

}  // namespace

std::unique_ptr<tracked_memory> make_mprotect(std::size_t pages) {
    return std::make_unique<write_protection>(pages);
}

}  // namespace gc_dirty
