using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace RocmForge
{
    /// <summary>Facts about the library itself.</summary>
    public static class Library
    {
        /// <summary>RF_ABI_VERSION of the header that these classes were written for.</summary>
        internal const uint AbiVersion = 1;

        /// <summary>The library's version, such as "0.1.0".</summary>
        public static string Version => Marshal.PtrToStringUTF8(Native.rf_version());

        /// <summary>Whether the library that was found serves these classes.</summary>
        public static bool IsCompatible => Native.rf_abi_compatible(AbiVersion) != 0;

        /// <summary>Whether the library was built with a feature, such as "cpu" or "hip".</summary>
        public static bool HasFeature(string name) => Native.rf_has_feature(new Utf8(name, nameof(name)).Bytes) != 0;
    }

    /// <summary>
    /// Threads and processor, shared by the models that it loads. Any number of threads may use it at once; it may be
    /// disposed before its models.
    /// </summary>
    public sealed class Engine : IDisposable
    {
        private delegate int LoadCall(ref rf_model_options options, out ModelHandle model, out IntPtr error);

        private readonly EngineHandle handle;

        /// <summary>Makes an engine.</summary>
        /// <exception cref="RocmForgeException">An option is out of range, or threads could not be started.</exception>
        public Engine(EngineOptions options = null)
        {
            options = options ?? new EngineOptions();
            using (var arena = new Arena())
            {
                rf_engine_options native = options.ToNative(arena);
                LogCallback onLog = LogTo(options.Log);
                if (onLog != null) native.on_log = Marshal.GetFunctionPointerForDelegate(onLog);
                int status = Native.rf_engine_create(ref native, out handle, out IntPtr error);
                handle.Callback = onLog;
                Interop.Check(status, error);
            }
        }

        /// <summary>Threads that the engine uses, the caller's included.</summary>
        public int Threads => (int)Native.rf_engine_threads(handle);

        /// <summary>The instruction set that the engine uses.</summary>
        public InstructionSet InstructionSet => (InstructionSet)Native.rf_engine_isa(handle);

        /// <summary>The GPUs of this machine, usable or not.</summary>
        public IReadOnlyList<Device> Devices
        {
            get
            {
                var devices = new List<Device>();
                using (new Hold(handle)) // the texts are the engine's
                {
                    uint count = Native.rf_engine_device_count(handle);
                    for (uint i = 0; i < count; i++)
                    {
                        var info = new rf_device_info { struct_size = Interop.SizeOf<rf_device_info>() };
                        Interop.Check(Native.rf_engine_device_info(handle, i, ref info, out IntPtr error), error);
                        devices.Add(new Device(info));
                    }
                }
                return devices;
            }
        }

        /// <summary>What the model at <paramref name="path"/> would take if it were loaded now.</summary>
        public MemoryEstimate Estimate(string path, int gpuLayers = 0)
        {
            var utf8 = new Utf8(path, nameof(path));
            var native = new rf_memory_estimate { struct_size = Interop.SizeOf<rf_memory_estimate>() };
            Interop.Check(Native.rf_engine_estimate(handle, utf8.Bytes, utf8.Length, gpuLayers, ref native,
                out IntPtr error), error);
            return new MemoryEstimate(native);
        }

        /// <summary>Loads a GGUF model from a file, and the other parts if it is the first of several.</summary>
        /// <exception cref="RocmForgeException">The message names the file, and the key or tensor.</exception>
        /// <exception cref="OperationCanceledException">The load was cancelled.</exception>
        public Model LoadModel(string path, ModelOptions options = null, CancellationToken cancellation = default)
        {
            var utf8 = new Utf8(path, nameof(path));
            return Load(options, cancellation,
                (ref rf_model_options native, out ModelHandle model, out IntPtr error) =>
                    Native.rf_model_load(handle, utf8.Bytes, utf8.Length, ref native, out model, out error));
        }

        /// <summary>As <see cref="LoadModel(string, ModelOptions, CancellationToken)"/>, on another thread.</summary>
        public Task<Model> LoadModelAsync(string path, ModelOptions options = null,
            CancellationToken cancellation = default)
        {
            return Task.Run(() => LoadModel(path, options, cancellation), cancellation);
        }

        /// <summary>Loads a GGUF model from memory.</summary>
        public Model LoadModel(byte[] bytes, ModelOptions options = null, CancellationToken cancellation = default)
        {
            if (bytes == null) throw new ArgumentNullException(nameof(bytes));
            return Load(options, cancellation,
                (ref rf_model_options native, out ModelHandle model, out IntPtr error) =>
                    Native.rf_model_load_memory(handle, bytes, (UIntPtr)bytes.Length, ref native, out model,
                        out error));
        }

        /// <summary>Loads a GGUF model from a stream that can seek, such as an entry of a game's asset pack.</summary>
        public Model LoadModel(Stream stream, ModelOptions options = null, CancellationToken cancellation = default)
        {
            if (stream == null) throw new ArgumentNullException(nameof(stream));
            var source = new HostReader(stream);
            try
            {
                return Load(options, cancellation, source.Load(handle));
            }
            catch (RocmForgeException) when (source.Failure != null)
            {
                ExceptionDispatchInfo.Capture(source.Failure).Throw(); // says more than "the reader failed"
                throw;
            }
        }

        /// <summary>Frees the engine; its models keep what they need of it.</summary>
        public void Dispose() => handle.Dispose();

        private Model Load(ModelOptions options, CancellationToken cancellation, LoadCall call)
        {
            cancellation.ThrowIfCancellationRequested();
            options = options ?? new ModelOptions();
            Exception failure = null;
            ProgressCallback onProgress = (userData, fraction) =>
            {
                try
                {
                    options.Progress?.Report(fraction);
                }
                catch (Exception e) // must not unwind through the library
                {
                    failure = e;
                }
                return failure != null || cancellation.IsCancellationRequested ? 1 : 0;
            };
            using (var arena = new Arena())
            {
                rf_model_options native = options.ToNative(arena);
                if (options.Progress != null || cancellation.CanBeCanceled)
                    native.on_progress = Marshal.GetFunctionPointerForDelegate(onProgress);
                int status = call(ref native, out ModelHandle model, out IntPtr error);
                GC.KeepAlive(onProgress);
                if (failure != null) ExceptionDispatchInfo.Capture(failure).Throw();
                Interop.Check(status, error, cancellation);
                model.Callback = handle.Callback; // the model may log after the engine is gone
                return new Model(model);
            }
        }

        private static LogCallback LogTo(Action<LogLevel, string> log)
        {
            if (log == null) return null;
            return (userData, level, message, length) =>
            {
                try
                {
                    log((LogLevel)level, Marshal.PtrToStringUTF8(message, Interop.Length(length)));
                }
                catch (Exception)
                {
                    // Must not unwind through the library, and nobody waits for it.
                }
            };
        }

        /// <summary>Reads from a stream for the library.</summary>
        private sealed class HostReader
        {
            private readonly Stream stream;
            private readonly ReadCallback read;
            private readonly byte[] chunk = new byte[1 << 16];

            internal Exception Failure { get; private set; }

            internal HostReader(Stream stream)
            {
                this.stream = stream;
                read = Read;
            }

            internal LoadCall Load(EngineHandle engine)
            {
                var reader = new rf_reader { struct_size = Interop.SizeOf<rf_reader>() };
                reader.length = (ulong)stream.Length;
                reader.read = Marshal.GetFunctionPointerForDelegate(read);
                return (ref rf_model_options native, out ModelHandle model, out IntPtr error) =>
                    Native.rf_model_load_reader(engine, ref reader, ref native, out model, out error);
            }

            private int Read(IntPtr userData, ulong offset, IntPtr buffer, UIntPtr n)
            {
                try
                {
                    stream.Position = checked((long)offset);
                    ulong left = n.ToUInt64();
                    for (IntPtr at = buffer; left > 0;)
                    {
                        int got = stream.Read(chunk, 0, (int)Math.Min(left, (ulong)chunk.Length));
                        if (got == 0) throw new EndOfStreamException();
                        Marshal.Copy(chunk, 0, at, got);
                        at = new IntPtr(at.ToInt64() + got);
                        left -= (ulong)got;
                    }
                    return 0;
                }
                catch (Exception e) // must not unwind through the library
                {
                    Failure = e;
                    return 1;
                }
            }
        }
    }
}
