// Errors, other ways to load, and memory.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using System.Threading;
using RocmForge;

static partial class Tests
{
    private static void RunErrors()
    {
        Check.Test("damaged files are errors with the library's sentence", () =>
        {
            byte[] start = File.ReadAllBytes(modelPath).Take(1 << 20).ToArray();
            string truncated = Path.Combine(folder, "truncated-é.gguf");
            string garbage = Path.Combine(folder, "garbage.gguf");
            File.WriteAllBytes(truncated, start);
            File.WriteAllText(garbage, "This is not a model.");
            foreach (string path in new[] { truncated, garbage })
            {
                var e = Check.Throws<RocmForgeException>(() => engine.LoadModel(path));
                Check.Equal(ErrorCode.Format, e.Code, e.Message);
                Check.True(e.Message.Contains(path) && e.Message.Length > path.Length + 10, e.Message);
                Check.Note(e.Message.Replace(folder + "/", ""));
            }
            Check.Equal(ErrorCode.Format, Check.Throws<RocmForgeException>(() => engine.LoadModel(start)).Code, "code");
            string missing = Path.Combine(folder, "missing.gguf");
            var io = Check.Throws<RocmForgeException>(() => engine.LoadModel(missing));
            Check.Equal(ErrorCode.Io, io.Code, io.Message);
            Check.True(io.Message.Contains(missing), io.Message);
            io = Check.Throws<RocmForgeException>(() => engine.LoadModelAsync(missing).GetAwaiter().GetResult());
            Check.Equal(ErrorCode.Io, io.Code, io.Message);
        });
        Check.Test("bad arguments are errors with a code", () =>
        {
            var e = Check.Throws<RocmForgeException>(() => new Sampler(new SamplerOptions { Temperature = -1 }));
            Check.Equal(ErrorCode.Argument, e.Code, e.Message);
            Check.True(e.Message.Contains("temperature"), e.Message);
            Check.Equal(ErrorCode.Unsupported, Check.Throws<RocmForgeException>(() => model.Tokenize("a",
                (TokenizeFlags)(1 << 20))).Code, "an unknown flag");
            Check.Equal(ErrorCode.Template, Check.Throws<RocmForgeException>(() => model.FormatChat(Ask("Hi"),
                new ChatOptions { ChatTemplate = "{{ raise_exception('no') }}" })).Code, "a template that refuses");
            Check.Equal(ErrorCode.Argument, Check.Throws<RocmForgeException>(() => model.FormatChat("{")).Code, "JSON");
            Check.Equal(ErrorCode.Argument, Check.Throws<RocmForgeException>(() =>
                model.MetadataValue("no.such.key")).Code, "a key that is not there");
            using (Session session = NewSession())
            {
                Check.Equal(ErrorCode.Argument, Check.Throws<RocmForgeException>(() => session.Next()).Code,
                    "nothing decoded");
                Check.Equal(ErrorCode.Argument, Check.Throws<RocmForgeException>(() =>
                    session.Decode(new[] { uint.MaxValue })).Code, "a token that is not there");
                Check.Equal(ErrorCode.Argument, Check.Throws<RocmForgeException>(() => session.Rewind(1)).Code,
                    "too far");
                var withNul = new GenerateOptions { StopStrings = new[] { "a\0b" } };
                Check.Throws<ArgumentException>(() => session.Begin(withNul));
                Check.Throws<ArgumentNullException>(() => session.Decode(null));
                Check.Throws<OverflowException>(() => session.Rewind(-1));
            }
            Check.Throws<ArgumentNullException>(() => engine.LoadModel((string)null));
        });
        Check.Test("a load reports its progress, logs, and can be cancelled", () =>
        {
            var log = new List<string>();
            var loud = new EngineOptions { Gpus = "none" };
            loud.Log = (level, text) => { lock (log) log.Add(level + " " + text); };
            using (var other = new Engine(loud))
            using (var stop = new CancellationTokenSource())
            {
                var seen = new List<float>();
                other.LoadModel(modelPath, new ModelOptions { Progress = new Reports(seen.Add) }).Dispose();
                Check.True(seen.Count > 2 && seen.SequenceEqual(seen.OrderBy(f => f)), seen.Count + " reports");
                Check.Equal(1f, seen.Last(), "last report");
                Check.True(log.Count > 0 && log.All(line => line.StartsWith("Info ")), string.Join("\n", log));
                var options = new ModelOptions { Progress = new Reports(fraction => stop.Cancel()) };
                Check.Throws<OperationCanceledException>(() => other.LoadModel(modelPath, options, stop.Token));
                options.Progress = new Reports(fraction => { throw new InvalidDataException("enough"); });
                Check.Equal("enough", Check.Throws<InvalidDataException>(() =>
                    other.LoadModel(modelPath, options)).Message, "an exception of the listener's");
            }
        });
    }

    private sealed class Reports : IProgress<float>
    {
        private readonly Action<float> report;
        internal Reports(Action<float> report) { this.report = report; }
        public void Report(float value) => report(value);
    }

    /// <summary>A stream that fails after its first bytes.</summary>
    private sealed class Failing : MemoryStream
    {
        internal Failing(byte[] bytes) : base(bytes) { }
        public override int Read(byte[] buffer, int offset, int count)
        {
            if (Position > 100000) throw new IOException("the disk is gone");
            return base.Read(buffer, offset, count);
        }
    }

    private static void RunLoads()
    {
        Check.Test("models load from memory, from streams and mapped", () =>
        {
            byte[] bytes = File.ReadAllBytes(modelPath);
            string expected;
            using (Session session = NewSession()) expected = ReadAll(session.Chat(Ask(Question), Greedily(8)));
            var loads = new Func<Model>[]
            {
                () => engine.LoadModel(bytes),
                () => engine.LoadModel(new MemoryStream(bytes)),
                () => engine.LoadModel(modelPath, new ModelOptions { Flags = LoadFlags.Mmap }),
                () => engine.LoadModelAsync(modelPath).GetAwaiter().GetResult(),
            };
            foreach (Func<Model> load in loads)
                using (Model other = load())
                using (Session session = other.CreateSession())
                    Check.Equal(expected, ReadAll(session.Chat(Ask(Question), Greedily(8))), "answer");
            var failed = Check.Throws<IOException>(() => engine.LoadModel(new Failing(bytes)));
            Check.Equal("the disk is gone", failed.Message, "an exception of the stream's");
        });
        Check.Test("objects are disposed in any order, and twice", () =>
        {
            Engine first = NewEngine();
            Model second = first.LoadModel(modelPath, new ModelOptions { Flags = LoadFlags.Mmap });
            Session third = second.CreateSession();
            Sampler sampler = NewGreedy();
            first.Dispose();
            second.Dispose();
            third.Decode(new uint[] { 1, 2, 3 });
            third.Begin(new GenerateOptions { Sampler = sampler });
            sampler.Dispose();
            Check.True(third.Next().Token != null, "no token");
            third.Dispose();
            third.Dispose();
            first.Dispose();
            Check.Throws<ObjectDisposedException>(() => third.Decode(new uint[] { 1 }));
            Check.Throws<ObjectDisposedException>(() => second.Tokenize("a"));
            Check.Throws<ObjectDisposedException>(() => first.LoadModel(modelPath));
        });
    }

    private static void RunLives()
    {
        Check.Test("memory does not grow over 100 lives", () => Grows(LiveOnce));
        Check.Test("memory does not grow over 100 lives that nobody disposes", () => Grows(ForgetOnce));
    }

    private static void Grows(Action live)
    {
        long after20 = 0;
        for (int i = 1; i <= 100; i++)
        {
            live();
            Collect();
            if (i == 20) after20 = ResidentBytes();
        }
        double growth = (ResidentBytes() - after20) / 1048576.0;
        Check.Note(string.Format("{0:F1} MiB after 20, {1:F2} MiB more after 100", after20 / 1048576.0, growth));
        Check.True(growth < 2, growth + " MiB");
    }

    /// <summary>Everything that can be made, used for some tokens, an error and a cancelled call among it.</summary>
    private static void LiveOnce()
    {
        using (Engine other = NewEngine())
        using (Model another = other.LoadModel(modelPath, new ModelOptions { Flags = LoadFlags.Mmap }))
        using (Sampler sampler = NewGreedy())
        using (Session session = another.CreateSession())
        using (var stop = new CancellationTokenSource())
        {
            var options = new GenerateOptions { Sampler = sampler, MaxTokens = 4, StopStrings = new[] { "never" } };
            Check.True(another.Tokenize(another.FormatChat(Ask(Question))).Length > 10, "no tokens");
            session.Decode(new uint[] { 1, 2, 3 }, stop.Token);
            Check.True(ReadAll(session.Generate(options, stop.Token)).Length > 0, "no text");
            Check.Throws<RocmForgeException>(() => session.Decode(new[] { uint.MaxValue }));
            Check.Throws<OperationCanceledException>(() => session.Generate(options, stop.Token)
                .ForEachAsync(piece => stop.Cancel()).GetAwaiter().GetResult());
        }
    }

    private static void ForgetOnce()
    {
        Session session = model.CreateSession();
        session.Decode(new uint[] { 1, 2, 3 });
        GC.KeepAlive(NewGreedy());
        GC.KeepAlive(NewEngine());
    }

    private static void Collect()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
    }

    /// <summary>Gives back what the C library's allocator keeps for later: some MiB, more or less by chance.</summary>
    [DllImport("libc")]
    private static extern int malloc_trim(UIntPtr pad);

    private static long ResidentBytes()
    {
        Collect();
        malloc_trim(UIntPtr.Zero);
        string line = File.ReadLines("/proc/self/status").First(text => text.StartsWith("VmRSS:"));
        return 1024 * long.Parse(line.Split(new[] { ' ', '\t' }, StringSplitOptions.RemoveEmptyEntries)[1]);
    }
}
