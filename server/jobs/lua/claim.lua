-- KEYS[7] dead letters. Arguments: worker, nonce, entry, max_attempts, result_ms, tombstone_ms, late (event body),
-- worn_out (event body), reason (code of worn_out), model_hash, dead_length.
-- Returns {'claimed', epoch, attempts, seq, ms since submit, base, 1 if it begins again with another model, params, tenant}
-- | {'ended', state, why} | {'gone'}.
local dead_letters = KEYS[7]
local pending = redis.call('XPENDING', key.queue, GROUP, args.entry, args.entry, 1)
if #pending == 0 or pending[1][2] ~= args.worker then
  return {'gone'}
end
local state = field('state')
if field('entry') ~= args.entry or state == '' or is_terminal(state) then
  leave_queue(args.entry)
  return {'gone'}
end
if field('nonce') ~= args.nonce then
  if field('cancel') == '1' then
    conclude('canceled', '{}', args.result_ms, args.tombstone_ms)
    return {'ended', 'canceled', 'canceled'}
  end
  if is_late() then
    conclude('failed', args.late, args.result_ms, args.tombstone_ms)
    return {'ended', 'failed', 'late'}
  end
  if number('attempts') >= args.max_attempts then
    conclude('failed', args.worn_out, args.result_ms, args.tombstone_ms)
    redis.call('XADD', dead_letters, 'MAXLEN', args.dead_length, '*', 'job', field('id'), 'model', field('model'),
      'reason', args.reason, 'attempts', field('attempts'), 'at', now, 'params', field('params'),
      'tenant', field('tenant'))
    return {'ended', 'failed', 'worn_out'}
  end
  local attempts = redis.call('HINCRBY', key.job, 'attempts', 1)
  local epoch = redis.call('HINCRBY', key.job, 'epoch', 1)
  local is_other_model = epoch > 1 and field('hash') ~= args.model_hash
  redis.call('HSET', key.job, 'state', 'running', 'owner', args.worker, 'nonce', args.nonce, 'hash', args.model_hash)
  if redis.call('HSETNX', key.job, 'started', now) == 1 then
    append('started', '{"attempt":' .. attempts .. '}')
  elseif is_other_model then
    -- Written here and not by the worker: if it died before, the next one would mix two models' tokens.
    redis.call('HSET', key.job, 'base', number('seq'), 'anew', epoch, 'done', 0)
    redis.call('DEL', outputs_key(field('id')), values_key(field('id')))
    local zeros = string.rep('0,', cjson.decode(field('params')).n):sub(1, -2)
    append('restarted', '{"attempt":' .. attempts .. ',"known":[' .. zeros .. '],"reason":"model_changed"}')
  end
end
return {'claimed', field('epoch'), field('attempts'), field('seq'), now - number('created'), number('base'),
  field('anew') == field('epoch') and 1 or 0, field('params'), field('tenant')}
