//! What this processor may run: asked once, never assumed at build time.

use std::sync::LazyLock;

/// The instruction sets that kernels are written for, in ascending order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust: the oracle.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-VNNI: products of bytes in one instruction of 256 bits (and all of [`Isa::Avx2`], which serves all else).
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI (and all of [`Isa::Avx2`], but not always AVX-VNNI).
    Avx512Vnni,
    /// AMX tiles with bf16 (and all of [`Isa::Avx512Vnni`], and AVX-512 BF16).
    Amx,
}

/// The best one without AMX.
static VECTORS: LazyLock<Isa> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        if *INTEL {
            super::simd::fetch_in_two_steps();
        }
        let avx2 =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        if avx2 && avx512 {
            return Isa::Avx512Vnni;
        }
        if avx2 {
            return if *AVX_VNNI { Isa::AvxVnni } else { Isa::Avx2 };
        }
    }
    Isa::Scalar
});

/// Whether the processor has AVX-VNNI, which the first ones with AVX-512 VNNI do not have.
static AVX_VNNI: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
});

/// Whether the processor is one of Intel's: what is best to do differs where what it can do does not. (Asked once: a virtual machine's
/// host answers, which takes microseconds.)
static INTEL: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        // SAFETY: every x86-64 processor has CPUID.
        #[allow(unused_unsafe)] // it became a safe function with a later compiler
        let vendor = unsafe { __cpuid(0) };
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
});

/// Whether this process may use AMX.
static AMX: LazyLock<bool> = LazyLock::new(|| {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        *VECTORS == Isa::Avx512Vnni && is_x86_feature_detected!("avx512bf16") && tiles::present() && tiles::permitted()
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
});

/// Floats of 16 bits that products are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortFloat {
    /// Pairs of which are added in float32.
    Bf16,
    /// Added in F16.
    F16,
}

impl Isa {
    /// Every instruction set, from the plainest.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512Vnni, Isa::Amx];

    /// The best one that this processor may run.
    pub fn detect() -> Isa {
        Isa::up_to(Isa::Amx)
    }

    /// The best one that this processor may run, but none better than `cap`.
    ///
    /// Linux has to permit AMX to the process; it is asked for that, once, only if `cap` admits AMX. (From then on it
    /// demands that the process's alternate signal stacks have room for the tiles: `sysconf(_SC_MINSIGSTKSZ)` bytes. Where a
    /// thread already has a smaller one, it refuses, and AVX-512 is the best.)
    pub fn up_to(cap: Isa) -> Isa {
        if cap == Isa::Amx && *AMX {
            return Isa::Amx;
        }
        Isa::capped(*VECTORS, *AVX_VNNI, cap)
    }

    /// The best one without AMX, of a processor whose best is `best`, but none better than `cap`.
    fn capped(best: Isa, has_avx_vnni: bool, cap: Isa) -> Isa {
        match best.min(cap) {
            Isa::AvxVnni if !has_avx_vnni => Isa::Avx2,
            isa => isa,
        }
    }

    /// Whether the processor multiplies bf16 (AVX512_BF16), beside [`Isa::Avx512Vnni`], whose cap admits it.
    pub fn has_bf16() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            *VECTORS == Isa::Avx512Vnni && is_x86_feature_detected!("avx512bf16")
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether the processor multiplies and adds in F16 (AVX512_FP16), beside [`Isa::Avx512Vnni`], whose cap admits it.
    pub fn has_f16() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            *VECTORS == Isa::Avx512Vnni && is_x86_feature_detected!("avx512fp16")
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Of which floats of 16 bits this processor makes twice as many products as of float32, if of any. On AMD's cores these are bf16;
    /// Intel's, where AMX has the quick ones, make half as many of these (measured on a Xeon of the fifth generation: 83 GFLOP/s, 170 of
    /// float32), and twice as many of F16.
    pub fn short_float() -> Option<ShortFloat> {
        match *INTEL {
            true => Isa::has_f16().then_some(ShortFloat::F16),
            false => Isa::has_bf16().then_some(ShortFloat::Bf16),
        }
    }

    /// The name that the command line and the log use.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Amx => "amx",
        }
    }

    /// What works on vectors: all of it but AMX.
    pub fn vectors(self) -> Isa {
        self.min(Isa::Avx512Vnni)
    }

    /// Those that this processor may run, from the plainest: what a kernel test iterates over.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|&isa| Isa::up_to(isa) == isa)
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles {
    //! AMX: what the processor has, and what the system allows. (Rust does not detect it yet.)

    use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};

    /// `arch_prctl`: permit a state component to the process (Linux, Documentation/arch/x86/xstate.rst).
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    /// The state component of the tiles' contents.
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    /// Leaf 7, EDX: AMX-BF16 and AMX-TILE (Intel SDM, CPUID).
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;

    /// Whether the processor has tiles and their products of bf16.
    #[allow(unused_unsafe)] // these became safe functions with a later compiler
    pub fn present() -> bool {
        // SAFETY: a processor with AVX-512 has CPUID; leaf 7 is asked for only if there is one.
        let flags = unsafe { if __get_cpuid_max(0).0 >= 7 { __cpuid_count(7, 0).edx } else { 0 } };
        flags & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE
    }

    /// Asks the system for them. A system that does not know the question refuses it.
    pub fn permitted() -> bool {
        // SAFETY: a system call without pointers.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_no_promise() {
        for (best, has_avx_vnni, cap, found) in [
            (Isa::Avx2, false, Isa::Amx, Isa::Avx2),
            (Isa::Avx2, false, Isa::AvxVnni, Isa::Avx2),
            (Isa::AvxVnni, true, Isa::Avx512Vnni, Isa::AvxVnni),
            (Isa::AvxVnni, true, Isa::Avx2, Isa::Avx2),
            (Isa::Avx512Vnni, true, Isa::AvxVnni, Isa::AvxVnni),
            // Ice Lake, Zen 4: the greater set without the smaller one.
            (Isa::Avx512Vnni, false, Isa::AvxVnni, Isa::Avx2),
            (Isa::Avx512Vnni, false, Isa::Amx, Isa::Avx512Vnni),
            (Isa::Scalar, false, Isa::Amx, Isa::Scalar),
        ] {
            assert_eq!(Isa::capped(best, has_avx_vnni, cap), found, "{best:?}, {has_avx_vnni}, up to {cap:?}");
        }
    }

    #[test]
    fn what_is_available_is_what_a_cap_gives() {
        for isa in Isa::available() {
            assert_eq!(Isa::up_to(isa), isa);
        }
        assert_eq!(Isa::available().last(), Some(Isa::detect()));
    }
}
