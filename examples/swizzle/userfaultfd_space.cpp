// Linux stops the thread that faults and tells another one, which answers with the page's contents:
// two context switches a fault. Frames are whatever Linux takes; the pool only counts them.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <xos/types.hpp>

#include "mapping.hpp"
#include "object_space.hpp"

namespace swizzle {

namespace {

class descriptor {
  public:
    explicit descriptor(long fd) : fd_(static_cast<int>(fd)) {}
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    ~descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }

  private:
    int fd_;
};

struct end_of_service {
    int event;
    ~end_of_service() { ::eventfd_write(event, 1); }
};

[[noreturn]] void refuse(const char* what) {
    throw not_available(std::string(what) + ": " + std::generic_category().message(errno));
}

class userfaultfd_space final : public object_space {
  public:
    userfaultfd_space(std::size_t pages, std::size_t frames)
        // Faults of user mode only: those need no privilege.
        : faults_(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)),
          stop_(::eventfd(0, EFD_CLOEXEC)),
          objects_(pages * xos::page_size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE),
          incoming_(frames * xos::page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS) {
        if (faults_.get() < 0) refuse("userfaultfd");
        if (stop_.get() < 0) refuse("eventfd");
        uffdio_api api{.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP, .ioctls = 0};
        if (::ioctl(faults_.get(), UFFDIO_API, &api) != 0)
            refuse("userfaultfd with write protection (Linux 5.7)");
        uffdio_register range{.range = {.start = address(0), .len = objects_.bytes()},
                              .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
                              .ioctls = 0};
        if (::ioctl(faults_.get(), UFFDIO_REGISTER, &range) != 0) refuse("UFFDIO_REGISTER");
    }

    void serve(const provider& provide, const std::function<void()>& work) override {
        const std::jthread server([&] { answer_faults(provide); });
        const end_of_service end{stop_.get()};  // before the thread is joined
        work();
    }

    std::byte* base() override { return objects_.data(); }
    std::byte* incoming(std::size_t frame) override {
        return incoming_.data() + frame * xos::page_size;
    }
    const std::byte* contents(placement where) override {
        return objects_.data() + where.page * xos::page_size;
    }

    void map(placement where, intent allowed) override {
        const std::uint64_t mode = allowed == intent::write ? 0 : UFFDIO_COPY_MODE_WP;
        uffdio_copy copy{.dst = address(where.page),
                         .src = reinterpret_cast<std::uint64_t>(incoming(where.frame)),
                         .len = xos::page_size,
                         .mode = mode,
                         .copy = 0};
        if (::ioctl(faults_.get(), UFFDIO_COPY, &copy) == 0) return;
        // It is there already, write-protected.
        uffdio_writeprotect allow{.range = {.start = address(where.page), .len = xos::page_size},
                                  .mode = 0};
        if (errno != EEXIST || ::ioctl(faults_.get(), UFFDIO_WRITEPROTECT, &allow) != 0)
            throw std::system_error(errno, std::generic_category(), "UFFDIO_COPY");
    }

    void unmap(std::span<const placement> pages) override {
        for (const placement& p : pages)
            ::madvise(objects_.data() + p.page * xos::page_size, xos::page_size, MADV_DONTNEED);
    }

  private:
    std::uint64_t address(std::size_t page) const {
        return reinterpret_cast<std::uint64_t>(objects_.data()) + page * xos::page_size;
    }

    void answer_faults(const provider& provide) const {
        pollfd wanted[] = {{faults_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
        for (;;) {
            if (::poll(wanted, 2, -1) < 0) continue;
            if (eventfd_t count; wanted[1].revents) {
                ::eventfd_read(stop_.get(), &count);
                return;
            }
            uffd_msg m;
            if (::read(faults_.get(), &m, sizeof m) != sizeof m) continue;
            if (m.event != UFFD_EVENT_PAGEFAULT) continue;
            constexpr auto writes = UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP;
            provide((m.arg.pagefault.address - address(0)) / xos::page_size,
                    m.arg.pagefault.flags & writes ? intent::write : intent::read);
        }
    }

    descriptor faults_, stop_;
    mapping objects_, incoming_;
};

}  // namespace

std::unique_ptr<object_space> make_userfaultfd(std::size_t pages, std::size_t frames) {
    return std::make_unique<userfaultfd_space>(pages, frames);
}

}  // namespace swizzle
