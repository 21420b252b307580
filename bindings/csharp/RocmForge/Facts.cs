// What the library tells about devices, models and sessions.
using System.Runtime.InteropServices;

namespace RocmForge
{
    /// <summary>A GPU.</summary>
    public sealed class Device
    {
        /// <summary>Its maker.</summary>
        public Vendor Vendor { get; }
        /// <summary>The maker's name for it.</summary>
        public string Name { get; }
        /// <summary>Its architecture, such as "gfx1100".</summary>
        public string Architecture { get; }
        /// <summary>Bytes of its memory.</summary>
        public ulong Memory { get; }
        /// <summary>Whether models may be put on it.</summary>
        public bool IsUsable { get; }
        /// <summary>Whether it shares the host's memory; such a GPU is used only if asked for by its number.</summary>
        public bool IsIntegrated { get; }
        /// <summary>Why it is not usable: a sentence; empty if it is.</summary>
        public string Reason { get; }
        /// <summary>Compute units.</summary>
        public int Multiprocessors { get; }

        internal Device(rf_device_info info)
        {
            Vendor = (Vendor)info.vendor;
            Name = Marshal.PtrToStringUTF8(info.name);
            Architecture = Marshal.PtrToStringUTF8(info.architecture);
            Memory = info.memory;
            IsUsable = info.usable != 0;
            IsIntegrated = info.integrated != 0;
            Reason = Marshal.PtrToStringUTF8(info.reason);
            Multiprocessors = (int)info.multiprocessors;
        }
    }

    /// <summary>What a model would take.</summary>
    public sealed class MemoryEstimate
    {
        /// <summary>Layers that would be on GPUs.</summary>
        public int GpuLayers { get; }
        /// <summary>Bytes of weights in the host's memory.</summary>
        public ulong HostBytes { get; }
        /// <summary>Bytes of weights on GPUs.</summary>
        public ulong DeviceBytes { get; }
        /// <summary>Bytes of the key-value cache of one token.</summary>
        public ulong KvBytesPerToken { get; }

        internal MemoryEstimate(rf_memory_estimate native)
        {
            GpuLayers = (int)native.gpu_layers;
            HostBytes = native.host_bytes;
            DeviceBytes = native.device_bytes;
            KvBytesPerToken = native.kv_bytes_per_token;
        }
    }

    /// <summary>What a model is.</summary>
    public sealed class ModelInfo
    {
        /// <summary>Tokens of the vocabulary.</summary>
        public int VocabularySize { get; }
        /// <summary>Tokens that the network was trained for.</summary>
        public int ContextLength { get; }
        /// <summary>Width of the residual stream.</summary>
        public int EmbeddingLength { get; }
        /// <summary>Layers.</summary>
        public int BlockCount { get; }
        /// <summary>Whether the model has a chat template.</summary>
        public bool HasChatTemplate { get; }
        /// <summary>Elements of all tensors.</summary>
        public ulong ParameterCount { get; }
        /// <summary>Bytes of all tensors in the file.</summary>
        public ulong TensorBytes { get; }
        /// <summary>Bytes of the key-value cache of one token.</summary>
        public ulong KvBytesPerToken { get; }
        /// <summary>Layers that are on GPUs.</summary>
        public int GpuLayers { get; }

        internal ModelInfo(rf_model_info native)
        {
            VocabularySize = (int)native.n_vocab;
            ContextLength = (int)native.context_length;
            EmbeddingLength = (int)native.embedding_length;
            BlockCount = (int)native.block_count;
            HasChatTemplate = native.has_chat_template != 0;
            ParameterCount = native.n_parameters;
            TensorBytes = native.tensor_bytes;
            KvBytesPerToken = native.kv_bytes_per_token;
            GpuLayers = (int)native.gpu_layers;
        }
    }

    /// <summary>What a session has done.</summary>
    public sealed class SessionStats
    {
        /// <summary>Tokens computed several at a time, as prompts are.</summary>
        public ulong PrefillTokens { get; }
        /// <summary>Microseconds that they took.</summary>
        public ulong PrefillMicroseconds { get; }
        /// <summary>Tokens computed one at a time.</summary>
        public ulong DecodeTokens { get; }
        /// <summary>Microseconds that they took.</summary>
        public ulong DecodeMicroseconds { get; }
        /// <summary>Bytes of the key-value cache now.</summary>
        public ulong KvBytes { get; }

        internal SessionStats(rf_session_stats native)
        {
            PrefillTokens = native.prefill_tokens;
            PrefillMicroseconds = native.prefill_us;
            DecodeTokens = native.decode_tokens;
            DecodeMicroseconds = native.decode_us;
            KvBytes = native.kv_bytes;
        }
    }

    /// <summary>A generated token and its text.</summary>
    public sealed class Piece
    {
        /// <summary>The token; null if this piece has only the rest of the text.</summary>
        public uint? Token { get; }
        /// <summary>Whole characters, often empty: what may become a character or a stop string is held back.</summary>
        public string Text { get; }
        /// <summary>Whether the generation has ended.</summary>
        public bool IsLast { get; }
        /// <summary>Why it has.</summary>
        public FinishReason Finish { get; }

        internal Piece(rf_piece native, bool isLast)
        {
            if (native.has_token != 0) Token = native.token;
            Text = Marshal.PtrToStringUTF8(native.text, Interop.Length(native.text_len));
            IsLast = isLast;
            Finish = (FinishReason)native.finish;
        }
    }
}
