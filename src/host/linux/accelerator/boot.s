# A boot sector that does in small what an ordinary x86-64 kernel does while it boots. It writes a digit to port 0xe9 at
# the start of each stage and, after the last one, 0x2a to port 0xf4, where QEMU's isa-debug-exit turns it into the exit
# status (0x2a << 1) | 1. AT&T syntax.
#
# Memory: 0x1000 PML4, 0x2000 PDPT, 0x3000 page directory, 0x4000 timer ticks, 0x5000 interrupt table, 0x7c00 this.

.pushsection .rodata.megaform_boot, "a", @progbits
.balign 16
.globl megaform_boot_start
.hidden megaform_boot_start
.globl megaform_boot_end
.hidden megaform_boot_end

# Stage 1, real mode: where the BIOS leaves off.
.code16
megaform_boot_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb $'1', %al
    outb %al, $0xe9
    # Address line 20, by system control port A.
    inb $0x92, %al
    orb $2, %al
    outb %al, $0x92
    # lgdtl with an absolute address: 0f 01 /2.
    .byte 0x66, 0x0f, 0x01, 0x16
    .word 0x7c00 + (.Lmegaform_gdtr - megaform_boot_start)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    # A far jump to selector 0x08.
    .byte 0xea
    .word 0x7c00 + (.Lmegaform_protected - megaform_boot_start)
    .word 0x08

# Stage 2, protected mode: page tables that map the first GiB to itself, then long mode.
.code32
.Lmegaform_protected:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movb $'2', %al
    outb %al, $0xe9
    movl $0x1000, %edi
    xorl %eax, %eax
    movl $0x1400, %ecx
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x3000, %edi
    movl $0x83, %eax
    movl $512, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    movl $0x1000, %eax
    movl %eax, %cr3
    # CR4: physical address extension, global pages, SSE.
    movl %cr4, %eax
    orl $0x2a0, %eax
    movl %eax, %cr4
    # EFER: long mode, system calls, no-execute.
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    # CR0: paging, write protection, no x87 emulation, coprocessor monitoring.
    movl %cr0, %eax
    andl $0xfffffffb, %eax
    orl $0x80010002, %eax
    movl %eax, %cr0
    # A far jump to selector 0x18.
    .byte 0xea
    .long 0x7c00 + (.Lmegaform_long - megaform_boot_start)
    .word 0x18

# Stage 3, long mode: CPUID and model-specific registers.
.code64
.Lmegaform_long:
    movb $'3', %al
    outb %al, $0xe9
    xorl %eax, %eax
    cpuid
    movl $0x80000001, %eax
    cpuid
    # The address of the local APIC.
    movl $0x1b, %ecx
    rdmsr
    # GS base, as a kernel keeps its per-CPU data.
    movl $0xc0000101, %ecx
    xorl %eax, %eax
    movl $0xffff8880, %edx
    wrmsr
    swapgs
    rdtsc

# Stage 4: three ticks of the timer (8254 channel 0 by way of the 8259), halted between them.
    movb $'4', %al
    outb %al, $0xe9
    movl $0x5200, %edi
    movl $(0x187c00 + (.Lmegaform_tick - megaform_boot_start)), (%rdi)
    movl $0x8e00, 4(%rdi)
    lidt .Lmegaform_idtr(%rip)
    movb $0x11, %al
    outb %al, $0x20
    movb $0x20, %al
    outb %al, $0x21
    movb $4, %al
    outb %al, $0x21
    movb $1, %al
    outb %al, $0x21
    movb $0xfe, %al
    outb %al, $0x21
    movb $0xff, %al
    outb %al, $0xa1
    movb $0x34, %al
    outb %al, $0x43
    movb $0xa9, %al
    outb %al, $0x40
    movb $4, %al
    outb %al, $0x40
    sti
2:  hlt
    cmpl $3, 0x4000
    jb 2b
    cli

# Stage 5: SSE2, which every x86-64 program uses and a KVM that interprets its guest does not know.
    movb $'5', %al
    outb %al, $0xe9
    pxor %xmm0, %xmm0
    paddq %xmm1, %xmm0
    movq %xmm0, %rax

# Stage 6: 100 million instructions, as a kernel needs to unpack itself. A fraction of a second on a CPU and under TCG,
# minutes where each one is interpreted.
    movb $'6', %al
    outb %al, $0xe9
    movl $50000000, %ecx
3:  decl %ecx
    jnz 3b

    movb $0x2a, %al
    outb %al, $0xf4
4:  hlt
    jmp 4b

.Lmegaform_tick:
    pushq %rax
    incl 0x4000
    movb $0x20, %al
    outb %al, $0x20
    popq %rax
    iretq

.balign 8
.Lmegaform_gdt:
    .quad 0
    # 0x08 code and 0x10 data of 32 bits, 0x18 code of 64 bits.
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
.Lmegaform_gdtr:
    .word .Lmegaform_gdtr - .Lmegaform_gdt - 1
    .long 0x7c00 + (.Lmegaform_gdt - megaform_boot_start)
.Lmegaform_idtr:
    .word 0xfff
    .quad 0x5000

.org megaform_boot_start + 510
    .word 0xaa55
megaform_boot_end:
.popsection
