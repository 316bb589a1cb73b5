// The arguments and the environment that the next program gets instead of the application's. They
// lie in memory of the thread's own: the child of a vfork shares the application's with its parent.
#pragma once

#include "libxos/cell/cell.hpp"
#include "libxos/program/launch.hpp"

namespace xos::syscall {

/// Memory for vectors and strings that last until the exec.
class exec_scratch {
  public:
    bool take(cell::context& c, std::size_t bytes);
    std::uint64_t* words(std::size_t n) {
        auto* w = reinterpret_cast<std::uint64_t*>(next_);
        next_ += n * sizeof *w;
        return w;
    }
    char* bytes() const { return reinterpret_cast<char*>(next_); }
    void use(std::size_t n) { next_ += n; }
    /// Copies a string there and returns its address.
    std::uint64_t string(const char* text);

  private:
    std::uint64_t next_ = 0;
};

class exec_vectors {
  public:
    exec_vectors() = default;
    ~exec_vectors();
    exec_vectors(const exec_vectors&) = delete;
    exec_vectors& operator=(const exec_vectors&) = delete;

    /// False: the application's own call should be made unchanged.
    bool make(cell::context& c, const program::launch_plan& plan, const program::program_file& file,
              const program::start_request& asked, std::uint64_t arguments,
              std::uint64_t environment);

    /// Null: use the application's.
    std::uint64_t arguments() const { return reinterpret_cast<std::uint64_t>(arguments_); }
    std::uint64_t environment() const { return reinterpret_cast<std::uint64_t>(environment_); }

  private:
    bool make_environment(std::uint64_t given, std::size_t count, bool with_library);
    bool add_preload(bool with_library);
    bool add_kept(std::uint64_t*& first, const std::uint64_t* reserved, std::size_t& hidden);
    bool make_arguments(const program::program_file& file, const program::start_request& asked,
                        std::uint64_t given, std::size_t count);
    bool inherit(const program::program_file& file, const program::start_request& asked);

    exec_scratch scratch_;
    std::uint64_t *arguments_ = nullptr, *environment_ = nullptr;
    std::size_t reserved_ = 0;   ///< the application's variables that begin with XOS_
    std::uint64_t preload_ = 0;  ///< the application's LD_PRELOAD=..., later the next program's
    bool preloads_own_only_ = false;
    int inherited_ = -1;  ///< a descriptor for the loader, which closes it
};

}  // namespace xos::syscall
