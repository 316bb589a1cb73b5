// PAGEMAP_SCAN (Linux 6.7, on a userfaultfd that protects and unprotects by itself), or else
// soft-dirty bits, which the kernel clears for the whole process at once.
#include "bench/suites/vm_scan_linux.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <vector>
#include <xos/types.hpp>

namespace xos::bench {

namespace {

class descriptor {
  public:
    explicit descriptor(int fd) : fd_(fd) {}
    ~descriptor() {
        if (fd_ >= 0) close(fd_);
    }
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

void set(std::uint64_t* bitmap, std::uint64_t page) {
    bitmap[page / 64] |= std::uint64_t{1} << page % 64;
}

class soft_dirty : public written_pages {
  public:
    soft_dirty(std::uint64_t begin, std::uint64_t bytes)
        : begin_(begin),
          pages_(bytes / page_size),
          clear_(open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC)),
          pagemap_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)),
          entries_(32768) {}

    bool usable() {
        std::vector<std::uint64_t> bitmap((pages_ + 63) / 64);
        collect(bitmap.data());
        *reinterpret_cast<volatile char*>(begin_) = 1;
        return collect(bitmap.data()) == 1;
    }

    std::uint64_t collect(std::uint64_t* bitmap) override {
        constexpr std::uint64_t bit = std::uint64_t{1} << 55;
        std::uint64_t found = 0;
        for (std::uint64_t first = 0; first < pages_; first += entries_.size()) {
            const std::uint64_t n = std::min<std::uint64_t>(entries_.size(), pages_ - first);
            if (pread(pagemap_.get(), entries_.data(), n * 8,
                      static_cast<off_t>((begin_ / page_size + first) * 8)) < 0)
                return 0;
            for (std::uint64_t i = 0; i < n; i++) {
                if (!(entries_[i] & bit)) continue;
                set(bitmap, first + i);
                found++;
            }
        }
        return write(clear_.get(), "4", 1) == 1 ? found : 0;
    }
    const char* name() const override { return "Linux by soft-dirty bits"; }

  private:
    std::uint64_t begin_, pages_;
    descriptor clear_, pagemap_;
    std::vector<std::uint64_t> entries_;
};

// As in Linux 6.7's <linux/fs.h> and <linux/userfaultfd.h>.
struct page_region {
    std::uint64_t start, end, categories;
};
struct scan_argument {
    std::uint64_t size, flags, start, end, walk_end, vector, vector_length, most_pages;
    std::uint64_t inverted, all_of, any_of, returned;
};
constexpr auto scan_request = _IOWR('f', 16, scan_argument);
constexpr std::uint64_t scan_and_protect = 1, page_is_written = 2;
constexpr std::uint64_t feature_unpopulated = 1 << 13, feature_asynchronous = 1 << 15;

class pagemap_scan : public written_pages {
  public:
    pagemap_scan(std::uint64_t begin, std::uint64_t bytes)
        : begin_(begin),
          bytes_(bytes),
          faults_(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | 1))),
          pagemap_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)),
          regions_(8192) {}

    bool usable() {
        uffdio_api api{};
        api.api = UFFD_API;
        api.features = feature_unpopulated | feature_asynchronous;
        if (ioctl(faults_.get(), UFFDIO_API, &api) != 0) return false;
        uffdio_register range{};
        range.range = {begin_, bytes_};
        range.mode = UFFDIO_REGISTER_MODE_WP;
        if (ioctl(faults_.get(), UFFDIO_REGISTER, &range) != 0) return false;
        std::vector<std::uint64_t> bitmap((bytes_ / page_size + 63) / 64);
        collect(bitmap.data());
        *reinterpret_cast<volatile char*>(begin_) = 1;
        return collect(bitmap.data()) == 1;
    }

    std::uint64_t collect(std::uint64_t* bitmap) override {
        scan_argument a{};
        a.size = sizeof a;
        a.flags = scan_and_protect;
        a.end = begin_ + bytes_;
        a.vector = reinterpret_cast<std::uint64_t>(regions_.data());
        a.vector_length = regions_.size();
        a.all_of = a.returned = page_is_written;
        std::uint64_t found = 0;
        for (a.start = begin_; a.start < a.end; a.start = a.walk_end) {
            const long regions = ioctl(pagemap_.get(), scan_request, &a);
            if (regions < 0) return 0;
            for (long i = 0; i < regions; i++) {
                const page_region& r = regions_[static_cast<std::size_t>(i)];
                for (std::uint64_t at = r.start; at < r.end; at += page_size, found++)
                    set(bitmap, (at - begin_) / page_size);
            }
        }
        return found;
    }
    const char* name() const override { return "Linux by PAGEMAP_SCAN"; }

  private:
    std::uint64_t begin_, bytes_;
    descriptor faults_, pagemap_;
    std::vector<page_region> regions_;
};

}  // namespace

std::unique_ptr<written_pages> watch_writes(std::uint64_t begin, std::uint64_t bytes) {
    if (auto best = std::make_unique<pagemap_scan>(begin, bytes); best->usable()) return best;
    if (auto other = std::make_unique<soft_dirty>(begin, bytes); other->usable()) return other;
    throw std::runtime_error("this kernel has neither PAGEMAP_SCAN nor soft-dirty bits");
}

}  // namespace xos::bench
