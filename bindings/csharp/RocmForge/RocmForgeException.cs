using System;

namespace RocmForge
{
    /// <summary>An error of the library: its code, and its sentence as the message.</summary>
    public sealed class RocmForgeException : Exception
    {
        /// <summary>What kind of error it is.</summary>
        public ErrorCode Code { get; }

        /// <summary>An error with its code and its sentence.</summary>
        public RocmForgeException(ErrorCode code, string message) : base(message)
        {
            Code = code;
        }
    }
}
