//! Programs of a few dozen instructions that the kernel runs on frames (bpf(2), `Documentation/bpf`): a builder of
//! instructions, and loading.
//!
//! Must not know trunks or mirrors; those are in [`switch`](super::switch).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;

/// A register. R0 is a call's result, R1 to R5 are its arguments and lost in it, R6 to R9 stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reg {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R6 = 6,
    R7 = 7,
}

/// A field of `struct __sk_buff`, by its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(super) enum Field {
    VlanPresent = 20,
    VlanTci = 24,
    /// In network byte order.
    VlanProtocol = 28,
}

/// A function of the kernel (`enum bpf_func_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Helper {
    /// (context, interface, flags): send a copy out of an interface.
    CloneRedirect = 13,
    /// (context, protocol in network byte order, tag): put a tag on the frame.
    VlanPush = 18,
    /// (context): take the tag off.
    VlanPop = 19,
    /// (interface, flags): the answer for the frame to go there.
    Redirect = 23,
}

/// For `Redirect`: as if the frame had come in there.
pub(super) const INGRESS: i32 = 1;
/// Answers of a program (`TC_ACT_…`): the next filter decides; the frame is dropped.
pub(super) const UNSPEC: i32 = -1;
pub(super) const DROP: i32 = 2;

/// A place in a program to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// The destination in the lower half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A program that is being written.
#[derive(Debug, Default)]
pub(super) struct Program {
    instructions: Vec<Instruction>,
    /// Where labels stand.
    labels: Vec<Option<usize>>,
    /// Jumps and where they go.
    jumps: Vec<(usize, Label)>,
}

impl Program {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, code: u8, to: Reg, from: Reg, offset: i16, immediate: i32) {
        let registers = to as u8 | (from as u8) << 4;
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }

    pub(super) fn set(&mut self, to: Reg, value: i32) {
        self.push(0xb7, to, Reg::R0, 0, value);
    }

    pub(super) fn copy(&mut self, to: Reg, from: Reg) {
        self.push(0xbf, to, from, 0, 0);
    }

    pub(super) fn and(&mut self, to: Reg, value: i32) {
        self.push(0x57, to, Reg::R0, 0, value);
    }

    /// Load a field of the context that `from` points to.
    pub(super) fn load(&mut self, to: Reg, from: Reg, field: Field) {
        self.push(0x61, to, from, field as i16, 0);
    }

    pub(super) fn call(&mut self, helper: Helper) {
        self.push(0x85, Reg::R0, Reg::R0, 0, helper as i32);
    }

    pub(super) fn exit(&mut self) {
        self.push(0x95, Reg::R0, Reg::R0, 0, 0);
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Let a label stand here.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.instructions.len());
    }

    fn jump_if(&mut self, code: u8, reg: Reg, value: i32, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(code, reg, Reg::R0, 0, value);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jump_if(0x05, Reg::R0, 0, to);
    }

    pub(super) fn jump_if_equal(&mut self, reg: Reg, value: i32, to: Label) {
        self.jump_if(0x15, reg, value, to);
    }

    pub(super) fn jump_if_not_equal(&mut self, reg: Reg, value: i32, to: Label) {
        self.jump_if(0x55, reg, value, to);
    }

    /// Unsigned.
    pub(super) fn jump_if_greater(&mut self, reg: Reg, value: i32, to: Label) {
        self.jump_if(0x25, reg, value, to);
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.labels[label.0].expect("every label that is jumped to has a place");
            let distance = to as i64 - at as i64 - 1;
            self.instructions[at].offset = distance.try_into().expect("programs are shorter than 32768 instructions");
        }
        self.instructions
    }

    /// Load the program for `cls_bpf`. It lives as long as this descriptor or a filter that was made with it.
    pub(super) fn load_classifier(self) -> io::Result<OwnedFd> {
        /// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the rest as zeroes.
        #[repr(C)]
        struct Load {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            version: u32,
            flags: u32,
        }
        const BPF_PROG_LOAD: libc::c_long = 5;
        const SCHED_CLS: u32 = 3;
        // None of the helpers asks for more.
        const LICENSE: &std::ffi::CStr = c"Apache-2.0";

        let instructions = self.finish();
        let load = Load {
            kind: SCHED_CLS,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            version: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `size_of::<Load>()` bytes of a `Load`, whose pointers are to instructions and a string
        // that live until after the call.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just returned this descriptor and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_reach_their_labels() {
        let mut program = Program::new();
        let (back, end) = (program.label(), program.label());
        program.set(Reg::R0, 1);
        program.place(back);
        program.jump_if_equal(Reg::R0, 2, end);
        program.set(Reg::R0, 2);
        program.jump(back);
        program.place(end);
        program.exit();
        let offsets: Vec<i16> = program.finish().iter().map(|instruction| instruction.offset).collect();
        assert_eq!(offsets, [0, 2, 0, -3, 0]);
    }

    #[test]
    fn instructions_are_those_of_the_kernel() {
        let mut program = Program::new();
        program.load(Reg::R7, Reg::R6, Field::VlanTci);
        program.copy(Reg::R6, Reg::R1);
        assert_eq!(
            program.finish(),
            [
                Instruction { code: 0x61, registers: 0x67, offset: 24, immediate: 0 },
                Instruction { code: 0xbf, registers: 0x16, offset: 0, immediate: 0 },
            ]
        );
    }
}
