#!/usr/bin/env python3
"""Presses Ctrl-C in examples/chat: in mid-answer, which ends that answer only, and between answers, which ends the program.

    check_chat.py PATH_OF_CHAT
"""
import signal
import subprocess
import sys


def start(*arguments):
    return subprocess.Popen([sys.argv[1], *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def read_until(process, wanted):
    output = b""
    while not output.endswith(wanted):
        byte = process.stdout.read(1)
        if not byte:
            sys.exit(f"no {wanted!r} in {output!r}")
        output += byte


def finish(process):
    output = process.communicate(timeout=60)[0]
    if process.returncode != 0:
        sys.exit(f"ended with {process.returncode}: {output!r}")
    return output


# So slow that the answer would take hours.
talk = start("count from one to nine", "--delay", "600000")
read_until(talk, b"> count from one to nine\no")
talk.send_signal(signal.SIGINT)
if b"(stopped)" not in finish(talk):
    sys.exit("the answer was not stopped")

talk = start()
read_until(talk, b"> ")
talk.stdin.write(b"three plus four\n")
talk.stdin.flush()
read_until(talk, b"seven   (16 + 6 tokens)\n> ")
talk.send_signal(signal.SIGINT)
read_until(talk, b"\n")
finish(talk)
print("both ended as they should")
