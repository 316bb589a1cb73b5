// The LD_PRELOAD library: a dynamic program is in the cell before its main() begins. The dynamic
// linker runs this constructor on the program's only thread.
#include "libxos/api/face.hpp"
#include "libxos/api/rseq.hpp"

namespace {

using namespace xos;

[[gnu::constructor]] void enter_before_main(int, char**, char** environment) {
    Elf64_auxv_t* const auxiliary = api::auxiliary_behind(environment);
    const api::wishes wishes = api::wishes_from(environment);
    const bool in_cell = api::start_cell(wishes);
    program::close_gap(environment, cell::the_cell.program.policy.hide(environment));
    if (!in_cell) return;
    api::give_up_rseq();
    api::hide_rseq(auxiliary);
    api::enter_cell();
}

}  // namespace
