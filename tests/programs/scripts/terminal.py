"""An interactive bash on a terminal of its own: job control by its keys."""
import os
import pty
import re
import select
import sys
import termios
import time

pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(PS1="% ", HISTFILE="", TERM="dumb")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])

seen = ""


def expect(pattern):
    global seen
    end = time.monotonic() + 60
    while not (found := re.search(pattern, seen)):
        if time.monotonic() > end or not select.select([terminal], [], [], 60)[0]:
            sys.exit(f"no {pattern!r} in {seen!r}")
        seen += os.read(terminal, 65536).decode().replace("\r\n", "\n")
    text, seen = seen[:found.end()], seen[found.end():]
    print(re.sub(r"\b\d{3,}\b", "N", text), flush=True)


def wait_for_foreground(name):
    """Until the program in the foreground is that one: keys before that are the shell's."""
    while True:
        try:
            with open(f"/proc/{os.tcgetpgrp(terminal)}/cmdline", "rb") as f:
                if f.read().split(b"\0")[0].decode().endswith(name):
                    return
        except OSError:
            pass
        time.sleep(0.01)


def type_in(text):
    os.write(terminal, text.encode())


expect("% ")
attributes = termios.tcgetattr(terminal)
attributes[3] &= ~termios.ECHO
termios.tcsetattr(terminal, termios.TCSANOW, attributes)
type_in("echo $(tty >/dev/null && echo on a terminal) $-\n")
expect("on a terminal.*\n% ")
for job in ("sleep 1000", "cat"):
    type_in(job + "\n")
    wait_for_foreground(job.split()[0])
    type_in("\x1a")
    expect(r"Stopped.*\n% ")
type_in("jobs\n")
expect(r"Stopped +sleep(.|\n)*Stopped +cat\n% ")
type_in("bg %1\n")
expect(r"&\n% ")
type_in("jobs\n")
expect(r"Running(.|\n)*\n% ")
type_in("fg %2\n")
wait_for_foreground("cat")
type_in("through cat\n")
expect("cat\nthrough cat\n")
type_in("\x04")
expect("% ")
type_in("fg %1\n")
expect("sleep 1000\n")  # or the key's signal would throw it away
wait_for_foreground("sleep")
type_in("\x03")
expect("(.|\n)*% ")
type_in("echo status $?\n")
expect(r"status 130\n% ")
type_in("sleep 1000 & kill -KILL %1; wait %1; echo status $?\n")
expect(r"status 137\n% ")
type_in("cat\n")
wait_for_foreground("cat")
type_in("\x1c")
expect(r"Quit.*\n% ")
type_in("exit 3\n")
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
