#include "page_file.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

namespace swizzle {

namespace {

[[noreturn]] void raise(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

void require_page(ssize_t transferred, const char* what) {
    if (transferred < 0) raise(what);
    if (transferred != xos::page_size)
        throw std::system_error(EIO, std::generic_category(),
                                std::string(what) + ", only part of it");
}

off_t offset_of(std::size_t page) {
    return static_cast<off_t>(page * xos::page_size);
}

}  // namespace

page_file::page_file(std::size_t pages, transfer how) : file_(std::tmpfile()), pages_(pages) {
    if (!file_) raise("a temporary file");
    if (::ftruncate(fileno(file_.get()), offset_of(pages)) != 0) raise("ftruncate");
    if (how == transfer::system_calls) return;
    void* at = ::mmap(nullptr, pages * xos::page_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                      fileno(file_.get()), 0);
    if (at == MAP_FAILED) raise("mmap");
    mapped_ = static_cast<std::byte*>(at);
}

page_file::~page_file() {
    if (mapped_) ::munmap(mapped_, pages_ * xos::page_size);
}

void page_file::read(std::size_t page, void* to) {
    if (mapped_) {
        std::memcpy(to, mapped_ + page * xos::page_size, xos::page_size);
        return;
    }
    require_page(::pread(fileno(file_.get()), to, xos::page_size, offset_of(page)),
                 "reading a page");
}

void page_file::write(std::size_t page, const void* from) {
    if (mapped_) {
        std::memcpy(mapped_ + page * xos::page_size, from, xos::page_size);
        return;
    }
    require_page(::pwrite(fileno(file_.get()), from, xos::page_size, offset_of(page)),
                 "writing a page");
}

}  // namespace swizzle
