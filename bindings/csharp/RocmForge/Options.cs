// Options: null and zero mean the library's default in every property, as in the header, which says more about each.
using System;
using System.Collections.Generic;

namespace RocmForge
{
    /// <summary>How to make an <see cref="Engine"/>.</summary>
    public sealed class EngineOptions
    {
        /// <summary>Threads in all, the caller's included. 0: as many as the process may use.</summary>
        public int Threads { get; set; }
        /// <summary>Caps the instruction set.</summary>
        public InstructionSet InstructionSet { get; set; }
        /// <summary>Receives log messages, on any thread, also on several at once. What it throws is dropped.</summary>
        public Action<LogLevel, string> Log { get; set; }
        /// <summary>
        /// "auto", "none", or numbers such as "0,1". Null: what ROCMFORGE_GPU_DEVICE says, else "auto".
        /// </summary>
        public string Gpus { get; set; }
        /// <summary>Bytes that may be taken on each GPU. 0: what is free.</summary>
        public ulong GpuMemory { get; set; }

        internal rf_engine_options ToNative(Arena arena)
        {
            var native = new rf_engine_options { struct_size = Interop.SizeOf<rf_engine_options>() };
            native.threads = checked((uint)Threads);
            native.isa = (uint)InstructionSet;
            native.gpus = arena.Text(Gpus, out native.gpus_len);
            native.gpu_memory = GpuMemory;
            return native;
        }
    }

    /// <summary>How to load a <see cref="Model"/>.</summary>
    public sealed class ModelOptions
    {
        /// <summary>Ways to load.</summary>
        public LoadFlags Flags { get; set; }
        /// <summary>Receives the fraction that is loaded, on the loading thread. Its exceptions end the load.</summary>
        public IProgress<float> Progress { get; set; }
        /// <summary>Pre-tokenizer to use instead of the file's.</summary>
        public string PreTokenizer { get; set; }
        /// <summary>Text of a Hugging Face tokenizer.json to use instead of the file's tokenizer.</summary>
        public string TokenizerJson { get; set; }
        /// <summary>Jinja chat template to use instead of the file's.</summary>
        public string ChatTemplate { get; set; }
        /// <summary>Layers to put on GPUs. 0: as many as fit; negative: none.</summary>
        public int GpuLayers { get; set; }
        /// <summary>Folder of the file of <see cref="LoadFlags.PackedCache"/>. Null: the model's.</summary>
        public string PackedCacheFolder { get; set; }

        internal rf_model_options ToNative(Arena arena)
        {
            var native = new rf_model_options { struct_size = Interop.SizeOf<rf_model_options>() };
            native.flags = (uint)Flags;
            native.pre_tokenizer = arena.Text(PreTokenizer, out native.pre_tokenizer_len);
            native.tokenizer_json = arena.Text(TokenizerJson, out native.tokenizer_json_len);
            native.chat_template = arena.Text(ChatTemplate, out native.chat_template_len);
            native.gpu_layers = GpuLayers;
            native.packed_cache_dir = arena.Text(PackedCacheFolder, out native.packed_cache_dir_len);
            return native;
        }
    }

    /// <summary>How to format a conversation.</summary>
    public sealed class ChatOptions
    {
        /// <summary>Ways to format.</summary>
        public ChatFlags Flags { get; set; }
        /// <summary>JSON array of function definitions, as OpenAI's API takes it.</summary>
        public string ToolsJson { get; set; }
        /// <summary>JSON object of further variables for the template.</summary>
        public string ExtraJson { get; set; }
        /// <summary>Jinja template to use this once.</summary>
        public string ChatTemplate { get; set; }

        internal rf_chat_options ToNative(Arena arena)
        {
            var native = new rf_chat_options { struct_size = Interop.SizeOf<rf_chat_options>() };
            native.flags = (uint)Flags;
            native.tools_json = arena.Text(ToolsJson, out native.tools_json_len);
            native.extra_json = arena.Text(ExtraJson, out native.extra_json_len);
            native.chat_template = arena.Text(ChatTemplate, out native.chat_template_len);
            return native;
        }
    }

    /// <summary>How a <see cref="Sampler"/> chooses tokens.</summary>
    public sealed class SamplerOptions
    {
        /// <summary>Ways to choose.</summary>
        public SamplerFlags Flags { get; set; }
        /// <summary>The same seed, session, library and machine give the same text, if the tokens before were computed
        /// in the same steps.</summary>
        public ulong Seed { get; set; }
        /// <summary>Divides the logits. 0: 0.8.</summary>
        public float Temperature { get; set; }
        /// <summary>Keep the k likeliest tokens. 0: 40; negative: all.</summary>
        public int TopK { get; set; }
        /// <summary>Keep the likeliest tokens that together reach this probability. 0: 0.95.</summary>
        public float TopP { get; set; }
        /// <summary>Keep tokens at least this fraction as likely as the likeliest. 0: 0.05; negative: all.</summary>
        public float MinP { get; set; }
        /// <summary>Typical sampling. 0: 1 (off).</summary>
        public float TypicalP { get; set; }
        /// <summary>Penalty for tokens in the window. 0: 1 (off).</summary>
        public float RepetitionPenalty { get; set; }
        /// <summary>Subtracted from the logits of tokens in the window.</summary>
        public float PresencePenalty { get; set; }
        /// <summary>Subtracted for each occurrence in the window.</summary>
        public float FrequencyPenalty { get; set; }
        /// <summary>The last tokens that penalties look at. 0: 64; negative: all.</summary>
        public int PenaltyWindow { get; set; }
        /// <summary>Numbers to add to tokens' logits; minus infinity forbids a token.</summary>
        public IDictionary<uint, float> LogitBias { get; set; }

        internal rf_sampler_options ToNative(Arena arena)
        {
            var native = new rf_sampler_options { struct_size = Interop.SizeOf<rf_sampler_options>() };
            native.flags = (uint)Flags;
            native.seed = Seed;
            native.temperature = Temperature;
            native.top_k = TopK;
            native.top_p = TopP;
            native.min_p = MinP;
            native.typical_p = TypicalP;
            native.repetition_penalty = RepetitionPenalty;
            native.presence_penalty = PresencePenalty;
            native.frequency_penalty = FrequencyPenalty;
            native.penalty_window = PenaltyWindow;
            native.logit_bias = arena.LogitBias(LogitBias);
            native.n_logit_bias = (UIntPtr)(LogitBias?.Count ?? 0);
            return native;
        }
    }

    /// <summary>How to make a <see cref="Session"/>.</summary>
    public sealed class SessionOptions
    {
        /// <summary>Ways to compute.</summary>
        public SessionFlags Flags { get; set; }
        /// <summary>Tokens that fit. 0: as many as the network was trained for.</summary>
        public int Context { get; set; }
        /// <summary>Tokens of a prompt that are computed at a time. 0: what is best where the model is.</summary>
        public int Batch { get; set; }
    }

    /// <summary>How to generate.</summary>
    public sealed class GenerateOptions
    {
        /// <summary>Ways to generate.</summary>
        public GenerateFlags Flags { get; set; }
        /// <summary>Chooses the tokens. Null: the default sampler.</summary>
        public Sampler Sampler { get; set; }
        /// <summary>Tokens at most. 0: no limit but the context.</summary>
        public int MaxTokens { get; set; }
        /// <summary>Tokens that end the generation besides the model's own.</summary>
        public uint[] StopTokens { get; set; }
        /// <summary>Texts that end the generation and are not returned.</summary>
        public string[] StopStrings { get; set; }

        /// <summary>Without the sampler, whose address the caller has to hold.</summary>
        internal rf_generate_options ToNative(Arena arena)
        {
            var native = new rf_generate_options { struct_size = Interop.SizeOf<rf_generate_options>() };
            native.flags = (uint)Flags;
            native.max_tokens = checked((uint)MaxTokens);
            native.n_stop_tokens = (uint)(StopTokens?.Length ?? 0);
            native.stop_tokens = arena.Tokens(StopTokens);
            native.stop_strings = arena.Texts(StopStrings);
            native.n_stop_strings = (UIntPtr)(StopStrings?.Length ?? 0);
            return native;
        }
    }
}
