// Addresses at which pages of the store appear: one interface, three ways to make them.
//
// A space is as large as the store, and at any time a few of its pages are mapped to frames. An
// access to any other faults, and the space asks the pool (`buffer_pool.hpp`) to provide the page.
//
// One thread uses the objects; it waits while the pool works.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <xos/mode.hpp>

namespace swizzle {

/// This machine cannot do it in this way; what() says why.
struct not_available : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class intent { read, write };

struct placement {
    std::size_t page;   ///< of the store
    std::size_t frame;  ///< of the pool
};

class object_space {
  public:
    using provider = std::function<void(std::size_t page, intent wanted)>;

    virtual ~object_space() = default;

    /// Runs `work` where the objects can be used. Faults go to `provide`, which does not throw.
    virtual void serve(const provider& provide, const std::function<void()>& work) = 0;

    virtual std::byte* base() = 0;

    /// Where to put the contents of a page that is about to be mapped.
    virtual std::byte* incoming(std::size_t frame) = 0;
    /// Also gives a page that is mapped for reading more permission.
    virtual void map(placement where, intent allowed) = 0;
    /// The contents of a mapped page, where system calls see it.
    virtual const std::byte* contents(placement where) = 0;
    virtual void unmap(std::span<const placement> pages) = 0;

    /// Sets the bits of the pages accessed since the last call, if the way can tell.
    virtual void take_accessed(std::uint64_t* /*bits*/) {}
    /// Virtual machine exits of this thread, if it is in a virtual machine.
    virtual std::optional<std::uint64_t> exits() const { return {}; }
};

// All throw not_available, or std::system_error.

/// A view of libxos: faults are handled where they happen. Starts the cell.
std::unique_ptr<object_space> make_view(std::size_t pages, std::size_t frames, xos::mode mode);
/// Inaccessible memory, and a handler for SIGSEGV that maps frames of a memory file over it.
std::unique_ptr<object_space> make_sigsegv(std::size_t pages, std::size_t frames);
/// A second thread reads faults from userfaultfd(2) and answers with contents.
std::unique_ptr<object_space> make_userfaultfd(std::size_t pages, std::size_t frames);

}  // namespace swizzle
