// A call's arguments in words, by their kinds in the table.
//
// The application's memory is read as the kernel would read it: an address that leads nowhere is
// shown as a number.
#pragma once

#include "libxos/base/text.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::syscall {

using trace_line = base::text<3072>;

struct traced_call {
    std::uint64_t number;
    const std::uint64_t* arguments;
};

/// "name(" and the arguments that can be shown before the call has been made; how many they are.
unsigned begin_call(trace_line& line, const traced_call& call);

/// The arguments from `next` on, and the result.
void end_call(trace_line& line, const traced_call& call, unsigned next, long result);
/// The same for a call that does not return.
void end_call_without_result(trace_line& line, const traced_call& call, unsigned next);

}  // namespace xos::syscall
