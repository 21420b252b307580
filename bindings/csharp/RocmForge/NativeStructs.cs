// The structs of rocmforge.h that begin with their size, under the header's own names: test/Layout.cs compares names,
// offsets and sizes with the C compiler's. A struct may lack fields at its end that a newer header has: the library
// reads as much as struct_size says.
using System;
using System.Runtime.InteropServices;

namespace RocmForge
{
    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    internal delegate void LogCallback(IntPtr userData, int level, IntPtr message, UIntPtr messageLength);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    internal delegate int ProgressCallback(IntPtr userData, float fraction);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    internal delegate int ReadCallback(IntPtr userData, ulong offset, IntPtr buffer, UIntPtr n);

#pragma warning disable 649 // the library writes some of the fields, and zero is the default of others
    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_engine_options
    {
        public uint struct_size;
        public uint flags;
        public uint threads;
        public uint isa;
        public IntPtr on_log;
        public IntPtr log_user_data;
        public IntPtr gpus;
        public UIntPtr gpus_len;
        public ulong gpu_memory;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_device_info
    {
        public uint struct_size;
        public uint vendor;
        public IntPtr name;
        public IntPtr architecture;
        public ulong memory;
        public uint usable;
        public uint integrated;
        public IntPtr reason;
        public uint multiprocessors;
        public uint reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_memory_estimate
    {
        public uint struct_size;
        public uint gpu_layers;
        public ulong host_bytes;
        public ulong device_bytes;
        public ulong kv_bytes_per_token;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_model_options
    {
        public uint struct_size;
        public uint flags;
        public IntPtr on_progress;
        public IntPtr progress_user_data;
        public IntPtr pre_tokenizer;
        public UIntPtr pre_tokenizer_len;
        public IntPtr tokenizer_json;
        public UIntPtr tokenizer_json_len;
        public IntPtr chat_template;
        public UIntPtr chat_template_len;
        public int gpu_layers;
        public uint reserved;
        public IntPtr packed_cache_dir;
        public UIntPtr packed_cache_dir_len;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_reader
    {
        public uint struct_size;
        public uint flags;
        public ulong length;
        public IntPtr read;
        public IntPtr user_data;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_model_info
    {
        public uint struct_size;
        public uint n_vocab;
        public uint context_length;
        public uint embedding_length;
        public uint block_count;
        public uint has_chat_template;
        public ulong n_parameters;
        public ulong tensor_bytes;
        public ulong kv_bytes_per_token;
        public uint gpu_layers;
        public uint reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_chat_options
    {
        public uint struct_size;
        public uint flags;
        public IntPtr tools_json;
        public UIntPtr tools_json_len;
        public IntPtr extra_json;
        public UIntPtr extra_json_len;
        public IntPtr chat_template;
        public UIntPtr chat_template_len;
    }

    // Has no size of its own: an element of an array in rf_sampler_options.
    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_logit_bias
    {
        public uint token;
        public float bias;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_sampler_options
    {
        public uint struct_size;
        public uint flags;
        public ulong seed;
        public float temperature;
        public int top_k;
        public float top_p;
        public float min_p;
        public float typical_p;
        public float repetition_penalty;
        public float presence_penalty;
        public float frequency_penalty;
        public int penalty_window;
        public IntPtr logit_bias;
        public UIntPtr n_logit_bias;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_session_options
    {
        public uint struct_size;
        public uint flags;
        public uint context;
        public uint batch;
        public IntPtr cancel;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_piece
    {
        public uint struct_size;
        public uint has_token;
        public uint token;
        public int finish;
        public IntPtr text;
        public UIntPtr text_len;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_generate_options
    {
        public uint struct_size;
        public uint flags;
        public IntPtr sampler;
        public uint max_tokens;
        public uint n_stop_tokens;
        public IntPtr stop_tokens;
        public IntPtr stop_strings;
        public UIntPtr n_stop_strings;
        public IntPtr on_piece;
        public IntPtr piece_user_data;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct rf_session_stats
    {
        public uint struct_size;
        public uint reserved;
        public ulong prefill_tokens;
        public ulong prefill_us;
        public ulong decode_tokens;
        public ulong decode_us;
        public ulong kv_bytes;
    }
#pragma warning restore 649
}
