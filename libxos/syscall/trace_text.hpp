// Writes a call's arguments as text, by their kinds in the table.
//
// The application's memory is read as the kernel would read it: a bad address is shown as a number.
#pragma once

#include "libxos/base/text.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::syscall {

using trace_line = base::text<3072>;

struct traced_call {
    std::uint64_t number;
    const std::uint64_t* arguments;
};

/// Writes "name(" and the arguments that are known before the call is made; returns how many.
unsigned begin_call(trace_line& line, const traced_call& call);

/// The arguments from `next` on, and the result.
void end_call(trace_line& line, const traced_call& call, unsigned next, long result);
/// The same for a call that does not return.
void end_call_without_result(trace_line& line, const traced_call& call, unsigned next);

}  // namespace xos::syscall
