// Linux keeps a dirty bit of its own for each page. Clearing write-protects all memory of the
// process, so the first write to a page faults, but no signal is raised. Reading takes 8 bytes a
// page from a file.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "linux_memory.hpp"
#include "tracked_memory.hpp"

namespace gc_dirty {

namespace {

constexpr std::uint64_t soft_dirty_bit = std::uint64_t{1} << 55;

class proc_file {
  public:
    proc_file(const char* path, int flags) : fd_(::open(path, flags | O_CLOEXEC)) {
        if (fd_ < 0)
            throw not_available(std::string(path) + ": " + std::generic_category().message(errno));
    }
    proc_file(const proc_file&) = delete;
    proc_file& operator=(const proc_file&) = delete;
    ~proc_file() { ::close(fd_); }
    int fd() const { return fd_; }

  private:
    int fd_;
};

class soft_dirty final : public tracked_memory {
  public:
    explicit soft_dirty(std::size_t pages)
        : clear_refs_("/proc/self/clear_refs", O_WRONLY),
          pagemap_("/proc/self/pagemap", O_RDONLY),
          memory_(pages),
          entries_(std::min<std::size_t>(pages, 8192)) {
        // A kernel without the feature has both files, too: its bits just never change.
        const auto first_is_dirty = [&] {
            page_set changed(pages);
            read_bits(changed);
            return (changed.words()[0] & 1) != 0;
        };
        start_tracking();
        const bool cleared = !first_is_dirty();
        *const_cast<volatile std::byte*>(memory_.data()) = std::byte{0};
        if (!cleared || !first_is_dirty())
            throw not_available("this kernel is built without CONFIG_MEM_SOFT_DIRTY");
    }

    std::byte* data() override { return memory_.data(); }

    void start_tracking() override {
        constexpr char clear_soft_dirty = '4';
        if (::write(clear_refs_.fd(), &clear_soft_dirty, 1) != 1)
            throw std::system_error(errno, std::generic_category(), "/proc/self/clear_refs");
    }
    void take_changed(page_set& changed) override {
        read_bits(changed);
        start_tracking();
    }

  private:
    void read_bits(page_set& changed) {
        changed.clear();
        const std::size_t before =
            reinterpret_cast<std::uintptr_t>(memory_.data()) / xos::page_size;
        for (std::size_t page = 0; page < memory_.pages(); page += entries_.size()) {
            const std::size_t n = std::min(entries_.size(), memory_.pages() - page);
            const ssize_t got = ::pread(pagemap_.fd(), entries_.data(), n * 8,
                                        static_cast<off_t>((before + page) * 8));
            if (got != static_cast<ssize_t>(n * 8))
                throw std::system_error(errno, std::generic_category(), "/proc/self/pagemap");
            for (std::size_t i = 0; i < n; i++) {
                if (entries_[i] & soft_dirty_bit) changed.insert(page + i);
            }
        }
    }

    proc_file clear_refs_, pagemap_;
    linux_memory memory_;
    std::vector<std::uint64_t> entries_;
};

}  // namespace

std::unique_ptr<tracked_memory> make_soft_dirty(std::size_t pages) {
    return std::make_unique<soft_dirty>(pages);
}

}  // namespace gc_dirty
