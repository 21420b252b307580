// Owners of the library's objects. The marshaller counts the calls that use a handle, so that Dispose on one thread
// never frees what a call on another still uses.
using System;
using System.Runtime.InteropServices;

namespace RocmForge
{
    internal abstract class NativeHandle : SafeHandle
    {
        protected NativeHandle() : base(IntPtr.Zero, true) { }

        /// <summary>A delegate that native code may call until this handle is freed; null if there is none.</summary>
        internal object Callback { get; set; }

        /// <inheritdoc/>
        public override bool IsInvalid => handle == IntPtr.Zero;
    }

    internal sealed class EngineHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.rf_engine_free(handle);
            return true;
        }
    }

    internal sealed class ModelHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.rf_model_free(handle);
            return true;
        }
    }

    internal sealed class SamplerHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.rf_sampler_free(handle);
            return true;
        }
    }

    internal sealed class CancelTokenHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.rf_cancel_token_free(handle);
            return true;
        }
    }

    internal sealed class SessionHandle : NativeHandle
    {
        protected override bool ReleaseHandle()
        {
            Native.rf_session_free(handle);
            return true;
        }
    }

    /// <summary>Keeps an object of the library alive while its address, or memory that it lent, is in use.</summary>
    internal struct Hold : IDisposable
    {
        private SafeHandle handle;

        internal Hold(SafeHandle handle)
        {
            bool held = false;
            handle.DangerousAddRef(ref held);
            this.handle = handle;
        }

        internal IntPtr Address => handle.DangerousGetHandle();

        public void Dispose()
        {
            SafeHandle held = handle;
            handle = null;
            if (held != null) held.DangerousRelease();
        }
    }
}
