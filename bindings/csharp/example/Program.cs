// Streams a model's answer: Program MODEL.gguf [QUESTION]
using System;
using System.Threading;
using System.Threading.Tasks;
using RocmForge;

static class Program
{
    static int Main(string[] args)
    {
        if (args.Length < 1) { Console.Error.WriteLine("usage: Program MODEL.gguf [QUESTION]"); return 2; }
        try
        {
            Answer(args[0], args.Length > 1 ? args[1] : "In which city is the Eiffel Tower?").GetAwaiter().GetResult();
            return 0;
        }
        catch (RocmForgeException e)
        {
            Console.Error.WriteLine(e.Message); // the library's own sentence
            return 1;
        }
        catch (OperationCanceledException)
        {
            return 130;
        }
    }

    static async Task Answer(string path, string question)
    {
        using (var stop = new CancellationTokenSource())
        using (var engine = new Engine())
        using (Model model = await engine.LoadModelAsync(path))
        using (Session session = model.CreateSession(new SessionOptions { Context = 2048 }))
        {
            Console.CancelKeyPress += (sender, e) => { e.Cancel = true; stop.Cancel(); };
            var messages = new[] { ChatMessage.System("Answer briefly."), ChatMessage.User(question) };
            var options = new GenerateOptions { MaxTokens = 256 };
            PieceStream answer = session.Chat(messages, options, cancellation: stop.Token);
            await answer.ForEachAsync(Console.Write); // C# 8: await foreach (string piece in answer) ...

            SessionStats stats = session.Stats;
            Console.WriteLine("\n\nanswer: {0:F1} tokens/s", 1e6 * stats.DecodeTokens / stats.DecodeMicroseconds);
        }
    }
}
