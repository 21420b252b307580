// The header's constants. The names follow its own (RF_FINISH_MAX_TOKENS is FinishReason.MaxTokens): test/Layout.cs
// compares the values.
using System;

namespace RocmForge
{
    /// <summary>Normal outcomes of calls.</summary>
    internal enum Status
    {
        Ok = 0,
        Pending = 1,
        Done = 2,
        Cancelled = 3,
        Full = 4,
    }

    /// <summary>What kind of error a <see cref="RocmForgeException"/> reports.</summary>
    public enum ErrorCode
    {
        /// <summary>An argument is outside what is documented.</summary>
        Argument = -1,
        /// <summary>The operating system or a stream refused: a missing file, no permission, a failed read.</summary>
        Io = -2,
        /// <summary>A file's bytes contradict their format, or it is damaged or incomplete.</summary>
        Format = -3,
        /// <summary>Valid, but not served by this version of the library.</summary>
        Unsupported = -4,
        /// <summary>Memory could not be had.</summary>
        OutOfMemory = -5,
        /// <summary>The tokens do not fit into the session's context; nothing was consumed.</summary>
        ContextFull = -6,
        /// <summary>The session is in use on another thread.</summary>
        Busy = -7,
        /// <summary>The chat template is missing, does not parse, or refused the messages.</summary>
        Template = -8,
        /// <summary>A buffer is too small. These classes meet it themselves.</summary>
        Buffer = -9,
        /// <summary>A GPU's driver refused a call.</summary>
        Device = -10,
        /// <summary>A GPU was lost: its models and sessions are of no use any more.</summary>
        DeviceLost = -11,
        /// <summary>A defect of the library.</summary>
        Internal = -100,
    }

    /// <summary>Instruction sets, as caps on what an engine uses.</summary>
    public enum InstructionSet
    {
        /// <summary>The best that the processor has.</summary>
        Auto = 0,
        /// <summary>Portable code only.</summary>
        Scalar = 1,
        /// <summary>AVX2, FMA and F16C.</summary>
        Avx2 = 2,
        /// <summary>AVX2 with AVX-VNNI: more than <see cref="Avx2"/>, less than <see cref="Avx512Vnni"/>.</summary>
        AvxVnni = 5,
        /// <summary>AVX-512 with VNNI.</summary>
        Avx512Vnni = 3,
        /// <summary>AMX with bf16, beside AVX-512.</summary>
        Amx = 4,
    }

    /// <summary>How much a log message matters.</summary>
    public enum LogLevel
    {
        /// <summary>For those who look into the engine.</summary>
        Debug = 1,
        /// <summary>What was loaded, and how.</summary>
        Info = 2,
        /// <summary>Something works less well than it could.</summary>
        Warning = 3,
        /// <summary>Something failed, and the call's exception says the same.</summary>
        Error = 4,
    }

    /// <summary>Makers of GPUs.</summary>
    public enum Vendor
    {
        /// <summary>AMD, through HIP.</summary>
        Amd = 1,
        /// <summary>NVIDIA, through CUDA's driver.</summary>
        Nvidia = 2,
    }

    /// <summary>Ways to load a model.</summary>
    [Flags]
    public enum LoadFlags
    {
        /// <summary>The weights are rearranged in memory of the model's own.</summary>
        None = 0,
        /// <summary>Use the weights where the file is mapped: loads at once, computes more slowly.</summary>
        Mmap = 1,
        /// <summary>Keep the rearranged weights in a file beside the model: the next load maps it.</summary>
        PackedCache = 2,
    }

    /// <summary>Tokens with a meaning.</summary>
    public enum SpecialToken
    {
        /// <summary>Begin of sequence.</summary>
        Bos = 1,
        /// <summary>End of sequence.</summary>
        Eos = 2,
        /// <summary>End of turn.</summary>
        Eot = 3,
        /// <summary>Unknown.</summary>
        Unk = 4,
        /// <summary>Padding.</summary>
        Pad = 5,
    }

    /// <summary>Ways to read a text as tokens.</summary>
    [Flags]
    public enum TokenizeFlags
    {
        /// <summary>The text and nothing else: what is right for text from users.</summary>
        None = 0,
        /// <summary>Add what the model asks for before and after.</summary>
        AddSpecial = 1,
        /// <summary>Control tokens in the text are tokens. Not for text from users: they could forge a turn.</summary>
        Special = 2,
    }

    /// <summary>Ways to format a conversation.</summary>
    [Flags]
    public enum ChatFlags
    {
        /// <summary>End with the beginning of the assistant's next turn.</summary>
        None = 0,
        /// <summary>End with the last message.</summary>
        NoGenerationPrompt = 1,
    }

    /// <summary>Ways to choose tokens.</summary>
    [Flags]
    public enum SamplerFlags
    {
        /// <summary>As the other options say.</summary>
        None = 0,
        /// <summary>Always the likeliest token; penalties and biases still act.</summary>
        Greedy = 1,
    }

    /// <summary>Ways to compute.</summary>
    [Flags]
    public enum SessionFlags
    {
        /// <summary>Fast.</summary>
        None = 0,
        /// <summary>Slower, without quantised activations and with a cache of float32.</summary>
        Reference = 1,
    }

    /// <summary>Ways to generate.</summary>
    [Flags]
    public enum GenerateFlags
    {
        /// <summary>Until the model ends its turn; a full context is an error.</summary>
        None = 0,
        /// <summary>Go on after the model's end tokens.</summary>
        IgnoreEnd = 1,
        /// <summary>Write control tokens as text.</summary>
        Special = 2,
        /// <summary>A full context ends the generation and is no error.</summary>
        StopWhenFull = 4,
    }

    /// <summary>Why a generation ended.</summary>
    public enum FinishReason
    {
        /// <summary>It has not ended.</summary>
        None = 0,
        /// <summary>The model ended its turn, or a stop token came.</summary>
        EndToken = 1,
        /// <summary>A stop string came.</summary>
        StopString = 2,
        /// <summary>As many tokens as were asked for are out.</summary>
        MaxTokens = 3,
        /// <summary>The context is full.</summary>
        Full = 4,
    }
}
