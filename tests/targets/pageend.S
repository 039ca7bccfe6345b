# build: gcc -O2 -fcf-protection=none -pthread hot.c check.S pageend.S
# Functions whose first five bytes touch, end at or cross the end of a page or of a cache line.
        .macro  function name, before, boundary, kind
        .p2align \boundary
        .fill   (1 << \boundary) - \before, 1, 0xcc
        .globl  \name
        .type   \name, @function
\name:
        .ifc    \kind, nop
        .byte   0x0f, 0x1f, 0x44, 0, 0          # nopl 0(%rax,%rax,1), the form of 5 bytes
        .endif
        .ifc    \kind, nops
        .fill   5, 1, 0x90
        .endif
        .ifc    \kind, frame
        push    %rbp                            # 1 + 3 + 1 = 5 bytes
        mov     %rsp, %rbp
        pop     %rbp
        .endif
        ret
        .size   \name, . - \name
        .pushsection .rodata
\name\()_text: .asciz "\name"
        .popsection
        .pushsection .data.rel.ro, "aw"
        .quad   \name\()_text, \name, 0
        .popsection
        .endm

        .pushsection .data.rel.ro, "aw"
        .globl  hot_table
        .p2align 4
hot_table:
        .popsection
        .section .text.pages, "ax", @progbits
        function f_page_end_nop, 5, 12, nop             # ends exactly at the page's end
        function f_page_end_nops, 5, 12, nops
        function f_page_end_frame, 5, 12, frame
        function f_page_start_nop, 4096, 12, nop        # starts at the page's start
        function f_page_start_frame, 4096, 12, frame
        function f_page_cross_nop, 3, 12, nop           # three bytes here, two there
        function f_page_cross_frame, 1, 12, frame
        function f_line_end_nop, 5, 6, nop              # ends exactly at a cache line's end
        function f_line_cross_nop, 3, 6, nop            # straddles two cache lines
        function f_line_cross_frame, 2, 6, frame
        .p2align 12
        .pushsection .data.rel.ro, "aw"
        .quad   0, 0, 0
        .popsection
        .section .note.GNU-stack, "", @progbits
