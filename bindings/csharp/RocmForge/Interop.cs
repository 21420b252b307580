using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

namespace RocmForge
{
    /// <summary>A text as the library takes it: UTF-8 and its length. Its address is never null.</summary>
    internal struct Utf8
    {
        internal readonly byte[] Bytes;
        internal readonly UIntPtr Length;

        internal Utf8(string text, string parameter)
        {
            if (text == null) throw new ArgumentNullException(parameter);
            int length = Encoding.UTF8.GetByteCount(text);
            Bytes = new byte[length + 1]; // the NUL
            Encoding.UTF8.GetBytes(text, 0, text.Length, Bytes, 0);
            Length = (UIntPtr)length;
        }
    }

    /// <summary>Memory for what option structs point to, for the time of one call.</summary>
    internal sealed class Arena : IDisposable
    {
        private readonly List<IntPtr> blocks = new List<IntPtr>();

        private IntPtr Allocate(int bytes)
        {
            IntPtr block = Marshal.AllocHGlobal(Math.Max(bytes, 1));
            blocks.Add(block);
            return block;
        }

        /// <summary>NUL-terminated; null stays null, which is the default everywhere.</summary>
        internal IntPtr Text(string text, out UIntPtr length)
        {
            length = UIntPtr.Zero;
            if (text == null) return IntPtr.Zero;
            Utf8 utf8 = new Utf8(text, nameof(text));
            IntPtr block = Allocate(utf8.Bytes.Length);
            Marshal.Copy(utf8.Bytes, 0, block, utf8.Bytes.Length);
            length = utf8.Length;
            return block;
        }

        internal IntPtr Tokens(uint[] tokens)
        {
            if (tokens == null) return IntPtr.Zero;
            IntPtr block = Allocate(tokens.Length * sizeof(uint));
            Marshal.Copy((int[])(object)tokens, 0, block, tokens.Length);
            return block;
        }

        internal IntPtr Texts(string[] texts)
        {
            if (texts == null) return IntPtr.Zero;
            IntPtr block = Allocate(texts.Length * IntPtr.Size);
            for (int i = 0; i < texts.Length; i++)
            {
                if (texts[i] == null || texts[i].IndexOf('\0') >= 0)
                    throw new ArgumentException("a text is null or has a NUL in it");
                Marshal.WriteIntPtr(block, i * IntPtr.Size, Text(texts[i], out _));
            }
            return block;
        }

        internal IntPtr LogitBias(IDictionary<uint, float> biases)
        {
            if (biases == null) return IntPtr.Zero;
            int size = Marshal.SizeOf<rf_logit_bias>();
            IntPtr block = Allocate(biases.Count * size), at = block;
            foreach (KeyValuePair<uint, float> entry in biases)
            {
                Marshal.StructureToPtr(new rf_logit_bias { token = entry.Key, bias = entry.Value }, at, false);
                at = IntPtr.Add(at, size);
            }
            return block;
        }

        public void Dispose()
        {
            foreach (IntPtr block in blocks) Marshal.FreeHGlobal(block);
            blocks.Clear();
        }
    }

    internal static class Interop
    {
        internal delegate int TextCall(byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error);

        /// <summary>Throws if a call failed; else its normal outcome.</summary>
        internal static Status Check(int status, IntPtr error)
        {
            if (status >= 0) return (Status)status;
            throw TakeError(status, error);
        }

        /// <summary>The same, with a cancelled call as the exception that .NET has for it.</summary>
        internal static Status Check(int status, IntPtr error, CancellationToken cancellation)
        {
            Status outcome = Check(status, error);
            if (outcome == Status.Cancelled) throw new OperationCanceledException(cancellation);
            return outcome;
        }

        private static RocmForgeException TakeError(int status, IntPtr error)
        {
            try
            {
                IntPtr text = error == IntPtr.Zero ? Native.rf_status_name(status) : Native.rf_error_message(error);
                return new RocmForgeException((ErrorCode)status, Marshal.PtrToStringUTF8(text));
            }
            finally
            {
                Native.rf_error_free(error);
            }
        }

        /// <summary>A text that the library writes to the caller's buffer.</summary>
        internal static string ReadText(TextCall call)
        {
            byte[] buffer = new byte[1024];
            while (true)
            {
                int status = call(buffer, (UIntPtr)buffer.Length, out UIntPtr needed, out IntPtr error);
                if (status != (int)ErrorCode.Buffer)
                {
                    Check(status, error);
                    return Encoding.UTF8.GetString(buffer, 0, Length(needed));
                }
                Native.rf_error_free(error);
                buffer = new byte[Length(needed) + 1];
            }
        }

        /// <summary>Copies <paramref name="count"/> numbers that the library lent.</summary>
        internal static uint[] CopyTokens(IntPtr tokens, UIntPtr count)
        {
            uint[] copy = new uint[Length(count)];
            if (copy.Length > 0) Marshal.Copy(tokens, (int[])(object)copy, 0, copy.Length);
            return copy;
        }

        internal static int Length(UIntPtr length) => checked((int)length.ToUInt64());

        internal static uint SizeOf<T>() where T : struct => (uint)Marshal.SizeOf<T>();
    }
}
