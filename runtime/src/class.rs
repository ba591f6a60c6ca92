//! Which of the released builds suits this machine.

/// The device class of this machine, as bundles name it: integer dot products (AVX-512 VNNI, AVX-VNNI) make the difference
/// on x86-64, because without them 8-bit products saturate in 16 bits and the quantizer must keep a bit free.
pub fn host_class() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni") {
            return "x86_64-vnni";
        }
        "x86_64"
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}
