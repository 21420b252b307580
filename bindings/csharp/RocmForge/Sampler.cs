using System;

namespace RocmForge
{
    /// <summary>A way to choose tokens. Any number of sessions may use it at once.</summary>
    public sealed class Sampler : IDisposable
    {
        internal SamplerHandle Handle { get; }

        /// <summary>Makes a sampler.</summary>
        /// <exception cref="RocmForgeException">An option is out of range; the message names it.</exception>
        public Sampler(SamplerOptions options = null)
        {
            using (var arena = new Arena())
            {
                rf_sampler_options native = (options ?? new SamplerOptions()).ToNative(arena);
                int status = Native.rf_sampler_create(ref native, out SamplerHandle handle, out IntPtr error);
                Interop.Check(status, error);
                Handle = handle;
            }
        }

        /// <summary>Frees the sampler; generations that use it keep what they need of it.</summary>
        public void Dispose() => Handle.Dispose();
    }
}
