// Benchmarks: the Linux way and libxos's way of the same thing, side by side.
//
// A row of the table is one registration object in a file below suites/; nothing else needs to know
// of it:
//
//     void getppid(std::uint64_t operations) {
//         for (; operations; operations--) syscall(SYS_getppid);
//     }
//
//     const registration forwarded({
//         .suite = "syscall",
//         .name = "getppid-exit",
//         .note = "one system call, forwarded by an exit",
//         .linux_way = side{.where = place::outside, .run = getppid},
//         .xos_way = side{.where = place::inside, .run = getppid},
//     });
//
// The harness runs the two sides in turn, round by round in one process, so that whatever else the
// machine does meets both alike. It enters the cell for a side that wants to be inside, calls
// setup(), runs some operations that are not measured, measures run(), calls teardown() and leaves.
// A round is as long as the clock needs, or of fixed length when instructions are counted, which
// repeat exactly.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>
#include <xos/cell.hpp>

namespace xos::bench {

enum class unit {
    time,          ///< nanoseconds; medians
    instructions,  ///< the counter counts instructions; minima, because what disturbs only adds
};

enum class place {
    outside,  ///< an ordinary thread of a process that is a cell
    inside,   ///< on a vCPU
    child,    ///< in a forked child that is no cell yet; one operation a round, nothing runs before
              ///< it
    own_process,  ///< outside, in a forked child that is no cell
    own_cell,     ///< inside, in a forked child with a cell of its own
};

struct side {
    place where = place::outside;
    /// Before and after every round, where the side runs, and not measured. May throw.
    void (*setup)() = nullptr;
    void (*run)(std::uint64_t operations) = nullptr;
    /// In place of `run` when only a part of an operation counts: the ticks of that part, summed.
    std::uint64_t (*measure)(std::uint64_t operations) = nullptr;
    void (*teardown)() = nullptr;
    /// After teardown(): the exits of the last run() or measure(), where another process makes them.
    std::uint64_t (*exits)() = nullptr;
    /// For operations that use something up: no more between setup() and teardown().
    std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
};

/// Another way to do without libxos.
struct alternative {
    const char* name;
    side way;
    /// Asked before it is measured, outside. Where the answer is no, it is left out of the row.
    bool (*available)() = nullptr;
};

/// What a benchmark starts, and the Debian package that has it; null for a part of libxos.
struct program {
    const char* name;
    const char* package;
};

struct benchmark {
    const char* suite;
    const char* name;
    const char* note;               ///< what one operation is, and where the two sides differ
    std::optional<side> linux_way;  ///< none where Linux has no such thing
    side xos_way;
    /// Operations in a round when instructions are counted. Fewer for long ones: emulation is slow,
    /// and only a round that is much shorter than the emulated machine's timer tick (400,000
    /// instructions) repeats exactly.
    std::uint64_t counted_operations = 400;
    /// The transport that is measured; `automatic` for any. Rows of another one are left out.
    xos::transport way = xos::transport::automatic;
    std::vector<alternative> others = {};
    /// No more, for operations that take long.
    unsigned most_rounds = std::numeric_limits<unsigned>::max();
    /// Measured in this unit only.
    std::optional<unit> only_in = {};
    /// An emulated machine has only those that are named here.
    std::vector<program> programs = {};
    /// That it uses at a time. With one it is pinned to one.
    unsigned processors = 1;
};

/// Adds a row. At namespace scope.
class registration {
  public:
    explicit registration(const benchmark& b);
};

const std::vector<benchmark>& all_benchmarks();

/// What the cell of this run is made with, for a `place::child` that makes its own.
const cell_options& options_of_cell();
void set_options_of_cell(const cell_options& options);

/// Something found out by the way about a side, reported beside the row; its last one counts.
void remark(const std::string& text);
std::string take_remark();

/// `suite/name`, how limits and filters call a row.
std::string full_name(const benchmark& b);

/// Whether a side takes a child that becomes a cell, which the child of a cell cannot.
bool needs_child(const benchmark& b);
/// Whether a side runs where this process is a cell.
bool needs_cell(const benchmark& b);

}  // namespace xos::bench
