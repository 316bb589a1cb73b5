// Frames are pages of a memory file, so that one frame can appear at any address. Each appearance
// and each disappearance is a system call, each fault a signal.
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <xos/types.hpp>

#include "mapping.hpp"
#include "object_space.hpp"

namespace swizzle {

namespace {

[[noreturn]] void raise_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

class memory_file {
  public:
    explicit memory_file(std::size_t bytes) : fd_(::memfd_create("frames", MFD_CLOEXEC)) {
        if (fd_ < 0) raise_errno("memfd_create");
        if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0) raise_errno("ftruncate");
    }
    memory_file(const memory_file&) = delete;
    memory_file& operator=(const memory_file&) = delete;
    ~memory_file() { ::close(fd_); }
    int fd() const { return fd_; }

  private:
    int fd_;
};

class sigsegv_space final : public object_space {
  public:
    sigsegv_space(std::size_t pages, std::size_t frames)
        : objects_(pages * xos::page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE),
          file_(frames * xos::page_size),
          frames_(frames * xos::page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                  file_.fd()) {}

    void serve(const provider& provide, const std::function<void()>& work) override {
        provide_ = &provide;
        active_ = this;
        struct sigaction action {
        }, before{};
        action.sa_sigaction = on_segv;
        action.sa_flags = SA_SIGINFO;
        if (::sigaction(SIGSEGV, &action, &before) != 0) raise_errno("sigaction");
        work();
        ::sigaction(SIGSEGV, &before, nullptr);
    }

    std::byte* base() override { return objects_.data(); }
    std::byte* incoming(std::size_t frame) override {
        return frames_.data() + frame * xos::page_size;
    }
    const std::byte* contents(placement where) override { return incoming(where.frame); }

    void map(placement where, intent allowed) override {
        const int protection = allowed == intent::write ? PROT_READ | PROT_WRITE : PROT_READ;
        // MAP_POPULATE: otherwise the access would fault once more, in the kernel.
        replace(where.page, protection, MAP_SHARED | MAP_POPULATE, file_.fd(),
                static_cast<off_t>(where.frame * xos::page_size));
    }

    void unmap(std::span<const placement> pages) override {
        for (const placement& p : pages)
            replace(p.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }

  private:
    static void on_segv(int, siginfo_t* info, void* context) {
        constexpr greg_t write_access = 2;  // of the page fault's error code
        const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(info->si_addr) -
                                                     active_->objects_.data());
        // Not ours: the access is made again, and this time it kills.
        if (offset >= active_->objects_.bytes()) {
            ::signal(SIGSEGV, SIG_DFL);
            return;
        }
        const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
        (*active_->provide_)(offset / xos::page_size,
                             registers[REG_ERR] & write_access ? intent::write : intent::read);
    }

    void replace(std::size_t page, int protection, int flags, int fd, off_t offset) {
        void* at = objects_.data() + page * xos::page_size;
        if (::mmap(at, xos::page_size, protection, flags | MAP_FIXED, fd, offset) == MAP_FAILED)
            raise_errno("mmap of a frame (each is a mapping of its own; see vm.max_map_count)");
    }

    static inline sigsegv_space* active_ = nullptr;

    mapping objects_;
    memory_file file_;
    mapping frames_;
    const provider* provide_ = nullptr;
};

}  // namespace

std::unique_ptr<object_space> make_sigsegv(std::size_t pages, std::size_t frames) {
    return std::make_unique<sigsegv_space>(pages, frames);
}

}  // namespace swizzle
