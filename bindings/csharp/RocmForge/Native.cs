// rocmforge.h, function by function, under the header's own names. test/Layout.cs compares the list with the header.
using System;
using System.Runtime.InteropServices;

namespace RocmForge
{
    internal static class Native
    {
        private const string Library = "rocmforge";
        private const CallingConvention C = CallingConvention.Cdecl;

        [DllImport(Library, CallingConvention = C)]
        internal static extern IntPtr rf_error_message(IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_error_free(IntPtr error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern IntPtr rf_version();
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_abi_compatible(uint abiVersion);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_has_feature(byte[] name);
        [DllImport(Library, CallingConvention = C)]
        internal static extern IntPtr rf_status_name(int status);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_engine_create(ref rf_engine_options options, out EngineHandle engine,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern uint rf_engine_threads(EngineHandle engine);
        [DllImport(Library, CallingConvention = C)]
        internal static extern uint rf_engine_isa(EngineHandle engine);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_engine_free(IntPtr engine);
        [DllImport(Library, CallingConvention = C)]
        internal static extern uint rf_engine_device_count(EngineHandle engine);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_engine_device_info(EngineHandle engine, uint index, ref rf_device_info info,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_engine_estimate(EngineHandle engine, byte[] path, UIntPtr pathLength,
            int gpuLayers, ref rf_memory_estimate estimate, out IntPtr error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_load(EngineHandle engine, byte[] path, UIntPtr pathLength,
            ref rf_model_options options, out ModelHandle model, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_load_memory(EngineHandle engine, byte[] bytes, UIntPtr length,
            ref rf_model_options options, out ModelHandle model, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_load_reader(EngineHandle engine, ref rf_reader reader,
            ref rf_model_options options, out ModelHandle model, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_model_free(IntPtr model);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_get_info(ModelHandle model, ref rf_model_info info, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern UIntPtr rf_model_metadata_count(ModelHandle model);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_metadata_key(ModelHandle model, UIntPtr index, byte[] buffer,
            UIntPtr capacity, out UIntPtr needed, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_metadata_value(ModelHandle model, byte[] key, UIntPtr keyLength,
            byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_special_token(ModelHandle model, uint which, out uint token,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_is_end_token(ModelHandle model, uint token);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_tokenize(ModelHandle model, byte[] text, UIntPtr textLength, uint flags,
            [Out] uint[] tokens, UIntPtr capacity, out UIntPtr count, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_detokenize(ModelHandle model, uint[] tokens, UIntPtr count, uint flags,
            byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_token_text(ModelHandle model, uint token, byte[] buffer,
            UIntPtr capacity, out UIntPtr needed, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_format_chat(ModelHandle model, byte[] messages, UIntPtr messagesLength,
            ref rf_chat_options options, byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_model_chat_template(ModelHandle model, byte[] buffer, UIntPtr capacity,
            out UIntPtr needed, out IntPtr error);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_sampler_create(ref rf_sampler_options options, out SamplerHandle sampler,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_sampler_free(IntPtr sampler);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_cancel_token_create(out CancelTokenHandle token, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_cancel_token_cancel(CancelTokenHandle token);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_cancel_token_reset(CancelTokenHandle token);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_cancel_token_free(IntPtr token);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_create(ModelHandle model, ref rf_session_options options,
            out SessionHandle session, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern void rf_session_free(IntPtr session);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_decode(SessionHandle session, uint[] tokens, UIntPtr count,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_logits(SessionHandle session, out IntPtr logits, out UIntPtr count,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_sample(SessionHandle session, IntPtr sampler, out uint token,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_begin(SessionHandle session, ref rf_generate_options options,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_next(SessionHandle session, ref rf_piece piece, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_rewind(SessionHandle session, UIntPtr count, out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_usage(SessionHandle session, out UIntPtr used, out UIntPtr capacity,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_tokens(SessionHandle session, out IntPtr tokens, out UIntPtr count,
            out IntPtr error);
        [DllImport(Library, CallingConvention = C)]
        internal static extern int rf_session_get_stats(SessionHandle session, ref rf_session_stats stats,
            out IntPtr error);
    }
}
