// The host side of turns.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::loops {

/// Once, when the cell has started: its system arena has room for turns.
base::outcome start();

/// A hook of the run loop in place of syscall::on_system_call(): ends the turns that the call
/// concerns before it is made. A call that waits for an event loop begins one.
void on_system_call(cell::context& c);

/// A hook of the run loop: ends a turn that has lasted for a whole interval of the timer.
void on_timer(cell::context& c);

/// Before a hop: ends the turn, and the timer does not interrupt the hop.
void before_hop(cell::context& c);

/// In a forked child: the turns of its parent's threads do not exist here.
void forget_turns();

// turn_host.cpp
void begin_turn(cell::context& c, std::uint64_t loop, std::uint64_t events, unsigned count);
void end_turn(cell::context& c);
/// Ends the turns of all other threads.
void end_other_turns(const cell::context& c);
/// The same for one descriptor, whoever has it.
void settle_descriptor(std::uint64_t number);
/// A thread that ends gives its turn's memory back.
void give_back_turn(cell::context& c);
/// Between the two no turn begins.
void hold_turns();
void release_turns();

// timer_host.cpp
/// False: the thread has no timer, or blocks its signal.
bool start_timer(cell::context& c);
void stop_timer(cell::context& c);
void delete_timer(cell::context& c);

}  // namespace xos::loops
