// build: gcc -m32 -nostdlib -static -no-pie narrow.S
// A 32-bit program without anything: it waits for signals, pause(2) of the 32-bit ABI.
    .globl _start
_start:
    movl $29, %eax
    int $0x80
    jmp _start
    .section .note.GNU-stack, "", @progbits
