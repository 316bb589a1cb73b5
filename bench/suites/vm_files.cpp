// Page faults of file mappings, which are Linux's on both sides: inside, KVM takes each and asks
// Linux.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "bench/harness.hpp"
#include "bench/suites/vm_pages.hpp"

namespace xos::bench {

namespace {

constexpr std::uint64_t pages_of_file = 512;

int file = -1;
std::uint64_t mapped_at;
std::uint64_t next_page;

void make_file() {
    char name[] = "/tmp/xos-bench-XXXXXX";
    file = mkstemp(name);
    if (file < 0) throw std::runtime_error("no file can be made in /tmp");
    unlink(name);
    const std::vector<char> contents(pages_of_file * page_size, 'x');
    if (write(file, contents.data(), contents.size()) != static_cast<ssize_t>(contents.size()))
        throw std::runtime_error("no room for 2 MiB in /tmp");
}

template <int Flags>
void map_file() {
    make_file();
    mapped_at =
        mapped(mmap(nullptr, pages_of_file * page_size, PROT_READ | PROT_WRITE, Flags, file, 0));
    next_page = 0;
}

void unmap_file() {
    munmap(reinterpret_cast<void*>(mapped_at), pages_of_file * page_size);
    close(file);
}

void write_next(std::uint64_t operations) {
    for (; operations; operations--, next_page++)
        *reinterpret_cast<volatile char*>(mapped_at + next_page % pages_of_file * page_size) = 1;
}

template <int Flags>
constexpr side first_writes(place where) {
    return {.where = where,
            .setup = map_file<Flags>,
            .run = write_next,
            .teardown = unmap_file,
            .most = pages_of_file};
}

template <int Flags>
registration file_fault(const char* name, const char* note) {
    return registration({
        .suite = "vm",
        .name = name,
        .note = note,
        .linux_way = first_writes<Flags>(place::outside),
        .xos_way = first_writes<Flags>(place::inside),
        .counted_operations = 256,
    });
}

const registration shared_mapping =
    file_fault<MAP_SHARED>("file-fault-shared", "first write to a page of a shared file mapping");
const registration private_mapping = file_fault<MAP_PRIVATE>(
    "file-fault-private", "first write to a page of a private file mapping: it is copied");
// Linux then has every page in its tables, and only KVM's are to be filled.
const registration warm_shared_mapping = file_fault<MAP_SHARED | MAP_POPULATE>(
    "file-fault-shared-warm",
    "first write to a page that MAP_POPULATE has mapped: Linux has no fault");
const registration warm_private_mapping = file_fault<MAP_PRIVATE | MAP_POPULATE>(
    "file-fault-private-warm", "the same of a private mapping, which MAP_POPULATE has copied");

}  // namespace

}  // namespace xos::bench
