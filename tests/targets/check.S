# check_call(call, want, got, vector_bytes): load all of *want, call, store all into *got.
# Frame above rsp: 0-639 stored registers, 640 call, 648 got, 656 vector_bytes.
        .text
        .globl  check_call
        .type   check_call, @function
        .p2align 4
check_call:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        sub     $664, %rsp                      # 7 pushes and 664: aligned at the call
        mov     %rdi, 640(%rsp)
        mov     %rdx, 648(%rsp)
        mov     %rcx, 656(%rsp)
        mov     %rsi, %rdi                      # = want, loaded last
        cmp     $32, %rcx
        je      load_ymm
.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movups  128+32*\n(%rdi), %xmm\n
.endr
        jmp     load_flags
load_ymm:
.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovups 128+32*\n(%rdi), %ymm\n
.endr
load_flags:
        pushfq
        pop     %rax
        and     $~0xcd5, %rax
        or      120(%rdi), %rax
        push    %rax
        popfq                                   # only moves from here to the call
        mov     0(%rdi), %rax
        mov     8(%rdi), %rbx
        mov     16(%rdi), %rcx
        mov     24(%rdi), %rdx
        mov     32(%rdi), %rsi
        mov     48(%rdi), %rbp
        mov     56(%rdi), %r8
        mov     64(%rdi), %r9
        mov     72(%rdi), %r10
        mov     80(%rdi), %r11
        mov     88(%rdi), %r12
        mov     96(%rdi), %r13
        mov     104(%rdi), %r14
        mov     112(%rdi), %r15
        mov     40(%rdi), %rdi
        call    *640(%rsp)
        mov     %rax, 0(%rsp)
        mov     %rbx, 8(%rsp)
        mov     %rcx, 16(%rsp)
        mov     %rdx, 24(%rsp)
        mov     %rsi, 32(%rsp)
        mov     %rdi, 40(%rsp)
        mov     %rbp, 48(%rsp)
        mov     %r8, 56(%rsp)
        mov     %r9, 64(%rsp)
        mov     %r10, 72(%rsp)
        mov     %r11, 80(%rsp)
        mov     %r12, 88(%rsp)
        mov     %r13, 96(%rsp)
        mov     %r14, 104(%rsp)
        mov     %r15, 112(%rsp)
        pushfq
        pop     120(%rsp)                       # the address counts from rsp after the pop
        cld
        cmpq    $32, 656(%rsp)
        je      store_ymm
.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movups  %xmm\n, 128+32*\n(%rsp)
.endr
        jmp     copy
store_ymm:
.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovups %ymm\n, 128+32*\n(%rsp)
.endr
        vzeroupper
copy:
        mov     %rsp, %rsi
        mov     648(%rsp), %rdi
        mov     $80, %ecx
        rep movsq
        add     $664, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .size   check_call, . - check_call
        .section .note.GNU-stack, "", @progbits
